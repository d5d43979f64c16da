"""Adoption: finds tasks that run at ZEGO and that nobody registered, where ZEGO can list all tasks of an AppId.

    for each AppId and kind: a page of the list ──► those without a row ──► registered, one transaction a page

What is done with those that have no row is the caller's choice: the daemon registers them, a command may only look.
Nothing here waits for a stop, and no stop waits for it: the calls are its own, one after another, and the database is
used in the background.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from watchdog.clock import Clock
from watchdog.core.kinds import KINDS, Kind
from watchdog.core.model import Reply, RunningTask
from watchdog.core.outcomes import ReplyClass
from watchdog.errors import ConfigError, NoAnswer, RequestError, WatchdogError
from watchdog.zego.client import ZegoClient
from watchdog.zego.lists import LISTS_PER_SECOND, TASKS_PER_PAGE, Listed, list_tasks
from watchdog.zego.pacing import Pace

log = structlog.get_logger(__name__)

MOST_PAGES: Final = 200
"""How many pages of one list are read."""

LISTED_KINDS: Final = tuple(kind.name for kind in KINDS.values() if kind.listing is not None)

Registrar = Callable[[Sequence[RunningTask]], Awaitable[Sequence[RunningTask]]]
"""Takes tasks that run; returns those that had no row."""


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A list that was not read, or not to its end."""

    app_id: int
    kind: str
    error: WatchdogError


@dataclass(frozen=True, slots=True)
class Adopted:
    """The result: ``tasks`` had no row; of ``running`` tasks in all. ``unusable`` entries of lists made no sense."""

    tasks: tuple[RunningTask, ...] = ()
    running: int = 0
    unusable: int = 0
    unlisted: tuple[Unlisted, ...] = ()

    def __add__(self, other: "Adopted") -> "Adopted":
        return Adopted(
            self.tasks + other.tasks,
            self.running + other.running,
            self.unusable + other.unusable,
            self.unlisted + other.unlisted,
        )


class Adopter:
    """``run_once`` reads all lists; the daemon's job calls ``run``."""

    def __init__(
        self,
        *,
        zego: ZegoClient,
        registrar: Registrar,
        apps: Sequence[int],
        clock: Clock,
        kinds: Sequence[str] = LISTED_KINDS,
        every_seconds: float = 0.0,
    ) -> None:
        self._zego = zego
        self._registrar = registrar
        self._lists = [(app_id, KINDS[name]) for app_id in apps for name in kinds]
        self._clock = clock
        self._every_seconds = every_seconds
        self._pace = Pace[tuple[int, str]](LISTS_PER_SECOND, clock=clock)
        self._complained = set[tuple[int, str]]()
        self._running: asyncio.Task[Adopted] | None = None

    async def run(self) -> float:
        """Run once and log; return the seconds until the next time. Raises DatabaseError."""
        self._running = asyncio.create_task(self.run_once())
        await asyncio.wait((self._running,))
        if self._running.cancelled():
            return self._every_seconds
        adopted = self._running.result()
        self._complain(adopted)
        if adopted.tasks or adopted.unusable:
            log.info(
                "tasks_adopted", tasks=len(adopted.tasks), running=adopted.running, unusable_entries=adopted.unusable
            )
        return self._every_seconds

    async def close(self) -> None:
        """Break off: what is not registered yet is found the next time."""
        if self._running is not None:
            self._running.cancel()

    async def run_once(self) -> Adopted:
        """Read the lists. One that cannot be read does not affect the others. Raises DatabaseError."""
        found = Adopted()
        for app_id, kind in self._lists:
            found += await self._adopt(app_id, kind)
        return found

    async def _adopt(self, app_id: int, kind: Kind) -> Adopted:
        found, page = Adopted(), None
        for _ in range(MOST_PAGES):
            try:
                listed = await self._ask(app_id, kind, page)
            except (RequestError, ConfigError) as error:
                return found + Adopted(unlisted=(Unlisted(app_id, kind.name, error),))
            if listed.tasks is None:
                refused = refusal(app_id, kind, listed.reply, listed.reply_class)
                return found + Adopted(unlisted=(Unlisted(app_id, kind.name, refused),))
            new: list[RunningTask] = []
            for start in range(0, len(listed.tasks), TASKS_PER_PAGE):
                # In parts: a list without pages may be long, and a long transaction would block all others.
                new += await self._registrar(listed.tasks[start : start + TASKS_PER_PAGE])
            found += Adopted(tuple(new), len(listed.tasks), listed.unusable)
            page = listed.next_page
            if page is None:
                return found
        told = f"AppId {app_id}: more than {MOST_PAGES} pages of {kind.name} tasks run; the rest was not read"
        return found + Adopted(unlisted=(Unlisted(app_id, kind.name, WatchdogError(told)),))

    async def _ask(self, app_id: int, kind: Kind, page: str | None) -> Listed:
        await self._pace.depart((app_id, kind.name))
        listed = await list_tasks(self._zego, kind, app_id, self._clock.time(), page=page)
        if listed.reply_class is ReplyClass.THROTTLED:
            self._pace.throttled((app_id, kind.name))
        else:
            self._pace.answered((app_id, kind.name))
        if listed.reply_class in {ReplyClass.CLOCK, ReplyClass.THROTTLED}:
            # The client has now learned the clock's offset, or the pace is slower.
            await self._pace.depart((app_id, kind.name))
            listed = await list_tasks(self._zego, kind, app_id, self._clock.time(), page=page)
        return listed

    def _complain(self, adopted: Adopted) -> None:
        """Log which lists cannot be read, each once until it can be read again."""
        unlisted = {(one.app_id, one.kind): one.error for one in adopted.unlisted}
        for (app_id, kind), error in unlisted.items():
            if (app_id, kind) not in self._complained:
                log.warning("tasks_not_listed", app_id=app_id, kind=kind, error=str(error))
        self._complained = set(unlisted)


def refusal(app_id: int, kind: Kind, reply: Reply, reply_class: ReplyClass) -> WatchdogError:
    """The error of an answer without a list: what ZEGO said, and the next step."""
    action = kind.name if kind.listing is None else kind.listing.action
    said = f"AppId {app_id}: ZEGO answers {action} with code {reply.code or '-'} ("
    said += f"{reply.message or f'HTTP {reply.http_status}'})"
    if reply.request_id:
        said += f", RequestId {reply.request_id}"
    if reply_class is ReplyClass.STOPPED:
        return NoAnswer(f"{said}, and no list that can be read; try again later, then report it")
    if reply_class in {ReplyClass.CREDENTIALS, ReplyClass.CONFIGURATION}:
        return ConfigError(f"{said}; check the secret with zego-watchdog check, and enable the service at ZEGO")
    if reply_class in {ReplyClass.REJECTED, ReplyClass.UNEXPECTED}:
        return WatchdogError(f"{said}; report it, with the RequestId")
    return NoAnswer(f"{said}; try again later")
