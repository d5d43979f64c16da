"""The network and the vendor behind it: what the watchdog's HTTP client talks to instead of sockets."""

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from fnmatch import fnmatchcase
from typing import Any, Final

import httpx2 as httpx

from simulation.virtual import VirtualClock
from watchdog.sandbox.misbehaviour import WELL_BEHAVED, Drop, Misbehaviour, between
from watchdog.sandbox.vendor import Action, Answer, Limits, Request, Vendor
from watchdog.sandbox.world import User, World, stream

Span = tuple[float, float]
"""From when to when, Unix seconds."""

_SYSTEM_ERROR: Final = 410000001
_APP_RATE: Final = 206
# The shares of all requests to which this happens, by themselves and outside of outages.
TROUBLE: Final[Sequence[tuple[float, Misbehaviour]]] = (
    (0.02, Misbehaviour(http_status=502)),
    (0.005, Misbehaviour(http_status=502, processed=True)),
    (0.01, Misbehaviour(code=_SYSTEM_ERROR)),
    (0.01, Misbehaviour(code=_APP_RATE)),
    (0.005, Misbehaviour(http_status=429)),
    (0.01, Misbehaviour(drop_reply=Drop.BEFORE)),
    (0.01, Misbehaviour(drop_reply=Drop.AFTER)),
    (0.005, Misbehaviour(latency_seconds=(1.0, 6.0))),
    (0.005, Misbehaviour(reply_latency_seconds=(10.0, 20.0))),
)
_LATENCY_SECONDS: Final = (0.01, 0.15)


def is_person(user: User, bots: Sequence[str]) -> bool:
    """Whether a user of the vendor's counts as a person, crashed or not."""
    return user.is_person and not any(fnmatchcase(user.user_id, bot) for bot in bots)


@dataclass(frozen=True, slots=True)
class Reply:
    """A response, and the Code and RequestId that can be read in it."""

    response: httpx.Response
    code: int | None = None
    request_id: str | None = None


class Gateway:
    """Handles every request: outage, trouble, or the vendor. What happens to a request depends on it alone.

    Chance is drawn from the seed and the request, not from a common stream: requests that leave at one moment may do so
    in any order, and a run still repeats.
    """

    def __init__(
        self,
        world: World,
        server_secrets: Mapping[int, str],
        *,
        clock: VirtualClock,
        seed: int,
        outages: Sequence[Span],
        bots: Sequence[str],
    ) -> None:
        self._world = world
        self._vendor = Vendor(world, server_secrets, Limits())
        self._clock = clock
        self._seed = seed
        self._outages = outages
        self._bots = bots
        self._seen: Counter[str] = Counter()
        self.requests = 0

    async def __call__(self, http: httpx.Request) -> httpx.Response:
        """Answer, or raise what a broken connection raises."""
        self.requests += 1
        request = Request.read(http.method, http.url.query.decode("latin-1"), http.content)
        chance = self._chance(request)
        record: dict[str, Any] = {"received_at": self._clock.time(), "delivered": False}
        record |= {"app_id": request.app_id, "kind": request.stops, "task_id": request.task_id}
        record |= {"code": None, "request_id": None}
        record |= {"http_status": None, "processed": False, "accepted": False, "readable": False}
        await self._clock.sleep(between(chance, _LATENCY_SECONDS))
        if any(began <= self._clock.time() < ended for began, ended in self._outages):
            # Nothing arrives: the log has no request.
            raise httpx.ConnectError("no route to the vendor")
        how = _draw(chance)
        try:
            await self._clock.sleep(between(chance, how.latency_seconds))
            if how.takes_effect:
                answer = self._vendor.answer(request, self._clock.time())
                record["accepted"] = answer.code == 0
            else:
                answer = Answer(how.code or 0, "Told to answer this.", self._world.new_id())
            asked_at = self._world.now
            people = self._people(request) if answer.code == 0 else {}
            reply = self._render(answer, how)
            record |= {"processed": how.takes_effect, "code": reply.code, "request_id": reply.request_id}
            record |= {"of_stop": answer.request_id, "http_status": reply.response.status_code}
            await self._clock.sleep(between(chance, _LATENCY_SECONDS) + between(chance, how.reply_latency_seconds))
            if how.drop_reply is not None:
                raise httpx.ReadError("the connection was closed")
            record |= {"delivered": True, "readable": reply.request_id is not None}
            if request.action is Action.USER_NUM and reply.code == 0:
                self._world.log.append(self._clock.time(), "answered_who_is_there", asked_at=asked_at, people=people)
            return reply.response
        finally:
            # Also when the client has given up waiting.
            if request.stops is not None:
                self._world.advance(self._clock.time())
                self._world.log.append(self._world.now, "stop_requested", **record)

    def _chance(self, request: Request) -> random.Random:
        what = request.body.decode() or ",".join(request.query.get("RoomId[]", request.query.get("RoomId", [])))
        self._seen[what] += 1
        return stream(self._seed, f"{request.action}:{what}:{self._seen[what]}")

    def _people(self, request: Request) -> dict[str, int]:
        now = self._world.now
        rooms = request.query.get("RoomId[]", []) if request.action is Action.USER_NUM else []
        return {
            room: sum(is_person(user, self._bots) for user in self._world.users(request.app_id or 0, room, now))
            for room in rooms
        }

    def _render(self, answer: Answer, how: Misbehaviour) -> Reply:
        headers = {"Date": formatdate(self._clock.time(), usegmt=True)}
        if how.http_status is not None:
            return Reply(httpx.Response(how.http_status, headers=headers, text="<html>gateway</html>"))
        body: dict[str, Any] = {"Code": answer.code, "Message": answer.message, "RequestId": answer.request_id}
        if answer.data is not None:
            body["Data"] = answer.data
        response = httpx.Response(200, headers=headers, content=json.dumps(body).encode())
        return Reply(response, answer.code, answer.request_id)


def _draw(chance: random.Random) -> Misbehaviour:
    drawn = chance.random()
    for share, how in TROUBLE:
        if drawn < share:
            return how
        drawn -= share
    return WELL_BEHAVED
