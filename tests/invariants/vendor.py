"""The vendor and the network to it; checks what must be true whenever a Stop leaves.

The world, its codes and its signatures are the sandbox's. What happens to a request once it has left happens on the
Timeline, whatever becomes of the process that sent it. Checked when a Stop leaves (design §11):

    I1  the vendor's last answer to this process about the room was 0 people, and it was fresh
    I2  the attempt is committed, in a row of its own, read through another connection
    I4  no other Stop for this task is under way
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final, Protocol

import httpx2 as httpx

from simulation.gateway import is_person
from simulation.virtual import START
from tests.invariants.database import SENT, Database, Violation
from tests.invariants.timeline import ProcessLoop, Timeline
from watchdog.config.settings import StopConfig
from watchdog.sandbox.misbehaviour import Body, Misbehaviour, Misbehaviours
from watchdog.sandbox.vendor import Action, Answer, Limits, Request, Vendor
from watchdog.sandbox.world import World, stream

APP_ID: Final = 12345
SECRET: Final = "made-up-secret"
BOTS: Final = ("bot-*",)
FRESH_SECONDS: Final = 5.0
"""``policy.verification_max_age_seconds``."""

_WAY_SECONDS: Final = 0.25
_MOMENT_SECONDS: Final = 0.2
"""What a few statements and turns of the loop may take."""


ASKS, IS_TOLD_WHO, STOPS, IS_TOLD_OF_STOP = "asks", "is told who is there", "stops", "is told of its stop"
_POINTS: Final[Mapping[Action | None, tuple[str, str]]] = {
    Action.USER_NUM: (ASKS, IS_TOLD_WHO),
    Action.STOP: (STOPS, IS_TOLD_OF_STOP),
}


class Caller(Protocol):
    """A process, as the network sees it."""

    instance: str
    loop: ProcessLoop
    disturbed_at: float

    @property
    def is_alive(self) -> bool: ...

    def reached(self, point: str) -> None: ...


@dataclass(slots=True)
class Stop:
    """One Stop request that left: its row, what the vendor did, and the reply that the process got."""

    task_id: str
    instance: str
    attempt_id: int
    left_at: float
    over_at: float
    accepted: bool = False
    told: tuple[str | None, str | None] | None = None
    """Code and RequestId, as they could be read in the reply; None while, or because, no reply came."""
    told_anything: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """One answer of the vendor to one process: when it was true, when it arrived, and the people in the room."""

    asked_at: float
    heard_at: float
    people: int


class ModelVendor:
    """Takes requests, treats them as told, and records them."""

    def __init__(
        self, timeline: Timeline, database: Database, stop: StopConfig, violated: Callable[[Violation], None]
    ) -> None:
        self._stop = stop
        self._timeline = timeline
        self._database = database
        self._violated = violated
        self.world = World(seed=1, concurrent_tasks=0, max_idle_seconds=150)
        self.world.advance(self.now)
        self._vendor = Vendor(self.world, {APP_ID: SECRET}, Limits(stop=int(stop.requests_per_second)))
        self.troubles = Misbehaviours(stream(1, "troubles"))
        self.outage_until = 0.0
        self.outage_is_silent = False
        self.stops: list[Stop] = []
        self.requests = 0
        self.troubled = 0
        self._said: dict[tuple[str, str], list[Said]] = {}

    @property
    def now(self) -> float:
        """Unix time, the true one."""
        return START.timestamp() + self._timeline.now

    def people(self, room: str) -> int:
        """How many people are really in a room."""
        return sum(is_person(user, BOTS) for user in self.world.users(APP_ID, room, self.now))

    async def handle(self, caller: Caller, http: httpx.Request) -> httpx.Response:  # noqa: C901 - one request's way, in order
        """Take a request from a process, and answer, or raise what a broken connection raises."""
        request = Request.read(http.method, http.url.query.decode("latin-1"), http.content)
        leaves, is_told = _POINTS.get(request.action, _POINTS[Action.USER_NUM])
        caller.reached(leaves)
        answered: asyncio.Future[httpx.Response] = caller.loop.create_future()
        if not caller.is_alive:
            return await answered
        self.requests += 1
        how = self.troubles.choose(request.action)
        stop = self._leaves(caller, request, how) if request.action is Action.STOP else None
        if self._timeline.now < self.outage_until:
            self.troubled += 1
            if not self.outage_is_silent:
                self._timeline.at(self._timeline.now + _WAY_SECONDS, lambda: _fail(answered, httpx.ConnectError))
            return await answered
        self.troubled += how != Misbehaviour()
        said: dict[str, int] = {}
        asked_at = self._timeline.now

        def arrives() -> None:
            nonlocal asked_at
            asked_at = self._timeline.now
            answer = Answer(how.code or 0, "Told to answer this.", self.world.new_id())
            if how.takes_effect:
                answer = self._vendor.answer(request, self.now)
                if stop is not None:
                    stop.accepted = answer.code == 0
            if answer.code == 0:
                for name in ("RoomId[]", "RoomId"):
                    said.update({room: self.people(room) for room in request.query.get(name, [])})
            response = self._render(answer, how)
            span = how.reply_latency_seconds
            self._timeline.at(asked_at + self.troubles.between(span) + _WAY_SECONDS, lambda: replies(answer, response))

        def replies(answer: Answer, response: httpx.Response) -> None:
            if caller.is_alive:
                caller.reached(is_told)
            if answered.done() or not caller.is_alive:
                return
            if how.drop_reply is not None:
                _fail(answered, httpx.ReadError)
                return
            if stop is not None:
                readable = how.http_status is None and how.body is Body.JSON
                stop.told = (str(answer.code), answer.request_id) if readable else (None, None)
            answered.set_result(response)

        self._timeline.at(asked_at + self.troubles.between(how.latency_seconds) + _WAY_SECONDS, arrives)
        response = await answered
        if stop is not None:
            stop.told_anything = True
        for room, people in said.items():
            self._said.setdefault((caller.instance, room), []).append(Said(asked_at, self._timeline.now, people))
        return response

    def _leaves(self, caller: Caller, request: Request, how: Misbehaviour) -> Stop:
        task_id, now = request.task_id or "", self._timeline.now
        rows = self._database.rows(
            "SELECT * FROM zego_stop_attempts WHERE task_id = ? AND outcome = ? AND instance = ?",
            *(task_id, SENT, caller.instance),
        )
        taken = {stop.attempt_id for stop in self.stops}
        free = [row["id"] for row in rows if row["id"] not in taken]
        if not free:
            self._violated(Violation(f"I2: {caller.instance} stops {task_id}, and no attempt is committed"))
        if flying := [stop for stop in self.stops if stop.task_id == task_id and stop.over_at > now]:
            self._violated(Violation(f"I4: {caller.instance} stops {task_id} while this is under way: {flying}"))
        if (task := self._database.record.tasks.get(task_id)) is not None:
            self._check_evidence(caller, task_id, str(task["room_id"]))
        answered_by = now + 2 * _WAY_SECONDS + how.latency_seconds[0] + how.reply_latency_seconds[0]
        over_at = min(answered_by, now + self._stop.request_timeout_seconds)
        stop = Stop(task_id, caller.instance, free[0] if free else -1, now, over_at)
        self.stops.append(stop)
        return stop

    def _check_evidence(self, caller: Caller, task_id: str, room: str) -> None:
        now = self._timeline.now
        said = self._said.get((caller.instance, room), [])
        empty = max((one for one in said if one.people == 0), key=lambda one: one.asked_at, default=None)
        if empty is None:
            self._violated(Violation(f"I1: {caller.instance} stops {task_id}; of {room} it has heard only {said}"))
            return
        since = empty.asked_at
        undisturbed = caller.disturbed_at < since and not self._database.failed_since(caller.instance, since)
        # Frozen after it had decided, it may come back as late as its lease allows.
        if now - since > (FRESH_SECONDS if undisturbed else self._stop.lease_seconds) + _MOMENT_SECONDS:
            self._violated(Violation(f"I1: {caller.instance} stops {task_id} on an old answer: {empty}, now {now}"))
        # What arrived this very moment may still be on its way through the process.
        contrary = [one for one in said if one.asked_at > since and one.heard_at < now - _MOMENT_SECONDS]
        if contrary and undisturbed:
            self._violated(Violation(f"I1: {caller.instance} stops {task_id}, and of {room} it has heard {contrary}"))

    def _render(self, answer: Answer, how: Misbehaviour) -> httpx.Response:
        headers = {"Date": formatdate(self.now, usegmt=True)}
        if how.http_status is not None or how.body is Body.HTML:
            return httpx.Response(how.http_status or 200, headers=headers, text="<html>gateway</html>")
        body: dict[str, Any] = {"Code": answer.code, "Message": answer.message, "RequestId": answer.request_id}
        if answer.data is not None:
            body["Data"] = answer.data
        content = json.dumps(body).encode()
        return httpx.Response(
            200, headers=headers, content=content[: len(content) // 2] if how.body is Body.CUT else content
        )

    def check_ledger(self, attempts: Mapping[int, Mapping[str, Any]]) -> None:
        """I2: a stored Code and RequestId are what was answered to that very request."""
        stops = {stop.attempt_id: stop for stop in self.stops}
        for number, row in attempts.items():
            stop = stops.get(number)
            if row["evidence_source"] == "callback" and row["sent_at"] is None:
                continue
            if row["code"] is None and row["request_id"] is None and row["http_status"] is None:
                if row["outcome"] == "stopped":
                    self._violated(Violation(f"I2: stopped, and no Code: {dict(row)}"))
            elif stop is None or stop.told != (row["code"], row["request_id"]):
                self._violated(Violation(f"I2: what was answered, {stop}, is not what is stored: {dict(row)}"))


def _fail(answered: "asyncio.Future[httpx.Response]", error: type[httpx.TransportError]) -> None:
    if not answered.done():
        answered.set_exception(error("the connection broke"))
