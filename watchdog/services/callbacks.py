"""One callback, from its bytes to the answer: read, verify, commit, and only then say yes.

    200 accepted | replayed | suspicious | ignored     committed, or nothing to commit
    400, 401, 413                                      refused: repeating it will not help
    503                                                the database is away: the vendor shall come again

Nothing here knows of HTTP but the numbers; ``http_server`` serves it.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, ParamSpec, TypeVar, assert_never

import structlog

from watchdog.clock import Clock
from watchdog.core import callbacks as events
from watchdog.core import presence
from watchdog.core.callback_body import BadCallback, Fault
from watchdog.core.callbacks import (
    Event,
    RoomClosed,
    RoomCreated,
    TaskException,
    Unrecognised,
    UserJoined,
    UserLeft,
    Utterance,
)
from watchdog.core.model import Outcome
from watchdog.core.people import is_person
from watchdog.errors import DatabaseError, DatabaseUnavailable
from watchdog.observer import Observer
from watchdog.store.aio.threads import Storage
from watchdog.store.callbacks import CallbackStore, Heard, Received, replay_key

P = ParamSpec("P")
R = TypeVar("R")

log = structlog.get_logger(__name__)

CALLS_AT_ONCE: Final = 64
"""Callbacks that wait for the database; the next ones are told to come again, and nothing piles up."""

WINDOW_SECONDS: Final = 300.0
"""How far a callback's timestamp may be from now: retries go on for 62 s, and clocks differ."""

_SAY_AGAIN_SECONDS: Final = 60.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status, and in one word why; ``kind`` is also what is counted."""

    http_status: int
    kind: str

    @property
    def is_refusal(self) -> bool:
        return self.http_status >= 400


STATUS_OF_FAULT: Final[Mapping[Fault, int]] = {
    Fault.MALFORMED: 400,
    Fault.WRONG_ENCODING: 400,
    Fault.MISSING_FIELD: 400,
    Fault.OUT_OF_RANGE: 400,
    Fault.TOO_LARGE: 413,
    Fault.BAD_SIGNATURE: 401,
    Fault.EXPIRED: 401,
}


class Webhook:
    """Takes callbacks in. ``secrets`` are the callback secrets of each AppId, more than one while they are rotated.

    ``bot_user_ids`` are shell patterns. Without ``discover`` a task that nobody registered stays unwatched.
    ``answers`` counts every answer by kind.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        callbacks: CallbackStore,
        secrets: Mapping[int, Sequence[str]],
        bot_user_ids: Sequence[str],
        discover: bool,
        clock: Clock,
        observer: Observer | None = None,
    ) -> None:
        self.answers: Counter[str] = Counter()
        self._storage = storage
        self._callbacks = callbacks
        self._secrets = secrets
        self._bot_user_ids = bot_user_ids
        self._discover = discover
        self._clock = clock
        self._observer = observer or Observer()
        self._calls = 0
        self._said: dict[str, float] = {}
        self._unsaid: Counter[str] = Counter()

    def adopt(self, *, secrets: Mapping[int, Sequence[str]], bot_user_ids: Sequence[str], discover: bool) -> None:
        """Take callbacks by these from now on; see the class."""
        self._secrets = secrets
        self._bot_user_ids = bot_user_ids
        self._discover = discover

    async def receive(self, content_type: str | None, body: bytes) -> Answer:
        """Answer one request; ``content_type`` is its header. Never raises for what it holds or for the database."""
        try:
            event = events.read(content_type, body)
            secrets = self._secrets.get(event.app_id)
            if not secrets:
                return self.refuse(401, "unknown_app", f"there is no callback secret for AppId {event.app_id}")
            events.verify(event, secrets, self._clock.time(), WINDOW_SECONDS)
            kind = await self._take(event, replay_key(event, body))
        except BadCallback as error:
            return self.refuse(STATUS_OF_FAULT[error.kind], error.kind, str(error))
        except DatabaseError as error:
            return self.refuse(503, "database_away", str(error))
        return self._count(Answer(200, kind))

    def refuse(self, http_status: int, kind: str, reason: str) -> Answer:
        """Count a refusal, and say so: the first of its kind at once, then at most once a minute."""
        self._unsaid[kind] += 1
        now = self._clock.monotonic()
        if kind not in self._said or now - self._said[kind] >= _SAY_AGAIN_SECONDS:
            self._said[kind] = now
            log.warning("callback_refused", kind=kind, status=http_status, reason=reason, count=self._unsaid.pop(kind))
        return self._count(Answer(http_status, kind))

    def prune(self) -> int:
        """See CallbackStore.prune; blocking."""
        return self._callbacks.prune()

    def _count(self, answer: Answer) -> Answer:
        self.answers[answer.kind] += 1
        return answer

    async def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """As Storage.call; not more than ``CALLS_AT_ONCE``, for one whose sender has been sent away waits on."""
        if self._calls >= CALLS_AT_ONCE:
            raise DatabaseUnavailable(f"{CALLS_AT_ONCE} callbacks wait for the database already")
        self._calls += 1
        running = asyncio.ensure_future(self._storage.call(method, *args, **kwargs))
        running.add_done_callback(self._came_back)
        return await asyncio.shield(running)

    def _came_back(self, running: "asyncio.Future[Any]") -> None:
        self._calls -= 1
        if not running.cancelled():
            # Nobody may be there any more to be told.
            running.exception()

    async def _take(self, event: Event, key: str) -> str:
        callbacks, call = self._callbacks, self._call
        match event:
            case RoomCreated() | RoomClosed() | UserJoined() | UserLeft():
                facts = presence.facts_of(event)
                if facts is None:
                    raise AssertionError("every event of a room says something of presence")
                return _kind_of(await call(callbacks.receive, facts, key, self._bot_user_ids))
            case Utterance():
                heard = await call(
                    callbacks.heard,
                    event.app_id,
                    event.room_id,
                    event.task_id,
                    _moment(event),
                    is_person=event.characters > 0 and is_person(event.user_id, self._bot_user_ids),
                    discover=self._discover,
                    replay_key=key,
                )
                if heard.discovered:
                    log.info("task_discovered", task_id=event.task_id, room_id=event.room_id, app_id=event.app_id)
                return _kind_of(heard)
            case TaskException() if event.code == events.IDLE_AUTO_STOP:
                reason = await call(
                    callbacks.auto_stopped,
                    event.app_id,
                    event.room_id,
                    event.task_id,
                    _moment(event),
                    event.code,
                    event.message,
                    replay_key=key,
                )
                if reason is None:
                    return "ignored"
                self._observer.attempt(Outcome.AUTO_STOPPED, reason)
                log.warning("auto_stopped_by_zego", task_id=event.task_id, room_id=event.room_id)
                return "accepted"
            case TaskException():
                log.warning("task_exception", task_id=event.task_id, code=event.code, message=event.message)
                return "ignored"
            case Unrecognised():
                return "ignored"
            case _:
                assert_never(event)


def _kind_of(result: Received | Heard) -> str:
    if result.replayed:
        return "replayed"
    return "suspicious" if result.suspicious else "accepted"


def _moment(event: Event) -> datetime:
    """When the callback was sent, to the millisecond, as it says."""
    return _EPOCH + timedelta(milliseconds=round(event.timestamp * 1000))
