"""One callback, from its bytes to the response: read, verify, commit, and only then accept.

    200 accepted | replayed | suspicious | ignored     committed, or nothing to commit
    400, 401, 413                                      refused: repeating it will not help
    503                                                the database is away or busy: the vendor should repeat it

Of HTTP this module only knows the status codes; ``http_server`` serves it.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, assert_never

import structlog

from watchdog.clock import Clock
from watchdog.core import callbacks, presence
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
from watchdog.core.clock_offset import ClockOffset
from watchdog.core.model import Outcome
from watchdog.core.people import is_person
from watchdog.errors import DatabaseError, Overloaded
from watchdog.observer import Observer
from watchdog.store.aio.callbacks import CallbackGroups
from watchdog.store.aio.database_clock import DatabaseClock
from watchdog.store.callbacks import AutoStop, Presence, Received, Speech
from watchdog.store.replays import Use, use_of

log = structlog.get_logger(__name__)

WINDOW_SECONDS: Final = 300.0
"""How far a callback's timestamp may be from now: the vendor retries for 62 s, and clocks differ."""

_LOG_AGAIN_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP status, and the reason in one word; ``kind`` is also what is counted."""

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


class CallbackIntake:
    """Takes callbacks in. ``secrets`` are the callback secrets of each AppId, several during a rotation.

    ``bot_user_ids`` are shell patterns. Without ``discover`` a task that is not registered stays unwatched.
    ``responses`` counts the responses by kind.
    """

    def __init__(
        self,
        *,
        store: CallbackGroups,
        database_clock: DatabaseClock,
        secrets: Mapping[int, Sequence[str]],
        bot_user_ids: Sequence[str],
        discover: bool,
        clock: Clock,
        observer: Observer | None = None,
    ) -> None:
        self.responses: Counter[str] = Counter()
        self._store = store
        self._database_clock = database_clock
        # One for each AppId: who has the secret of one AppId must not shift the others' times.
        self._offsets = defaultdict[int, ClockOffset](ClockOffset)
        self._secrets = secrets
        self._bot_user_ids = bot_user_ids
        self._discover = discover
        self._clock = clock
        self._observer = observer or Observer()
        self._logged_at: dict[str, float] = {}
        self._unlogged: Counter[str] = Counter()

    def adopt(self, *, secrets: Mapping[int, Sequence[str]], bot_user_ids: Sequence[str], discover: bool) -> None:
        """Use these from now on; see the class."""
        self._secrets = secrets
        self._bot_user_ids = bot_user_ids
        self._discover = discover

    async def receive(self, content_type: str | None, body: bytes) -> Response:
        """Answer one request; ``content_type`` is its header. Raises neither for its contents nor for the database."""
        try:
            event = callbacks.read(content_type, body)
            secrets = self._secrets.get(event.app_id)
            if not secrets:
                return self.refuse(401, "unknown_app", f"there is no callback secret for AppId {event.app_id}")
            callbacks.verify(event, secrets, self._clock.time(), WINDOW_SECONDS)
            kind = await self._take(event, use_of(event, body))
        except BadCallback as error:
            return self.refuse(STATUS_OF_FAULT[error.kind], error.kind, str(error))
        except Overloaded as error:
            return self.refuse(503, "overloaded", str(error))
        except DatabaseError as error:
            return self.refuse(503, "database_away", str(error))
        except TimeoutError as error:
            return self.refuse(503, "database_slow", str(error))
        return self._count(Response(200, kind))

    def refuse(self, http_status: int, kind: str, reason: str) -> Response:
        """Count a refusal, and log it: the first of its kind at once, then at most once a minute."""
        self._unlogged[kind] += 1
        now = self._clock.monotonic()
        if kind not in self._logged_at or now - self._logged_at[kind] >= _LOG_AGAIN_SECONDS:
            self._logged_at[kind] = now
            log.warning(
                "callback_refused", kind=kind, status=http_status, reason=reason, count=self._unlogged.pop(kind)
            )
        return self._count(Response(http_status, kind))

    def _count(self, response: Response) -> Response:
        self.responses[response.kind] += 1
        return response

    def _moment(self, event: Event) -> datetime:
        """When a callback that just arrived was sent, by the database's clock, to the millisecond; never later."""
        age = self._offsets[event.app_id].age(event.timestamp, self._clock.monotonic())
        moment = self._database_clock.now() - timedelta(seconds=age)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    async def _take(self, event: Event, use: Use) -> str:
        sent_at = self._moment(event)
        match event:
            case RoomCreated() | RoomClosed() | UserJoined() | UserLeft():
                facts = presence.facts_of(event)
                ahead = datetime.fromtimestamp(event.timestamp, UTC) - sent_at
                if facts is None:
                    raise AssertionError("every room event must have presence facts")
                return _kind_of(await self._store.submit(Presence(facts, self._bot_user_ids, use, ahead)))
            case Utterance():
                heard = await self._store.submit(
                    Speech(
                        event.app_id,
                        event.room_id,
                        event.task_id,
                        sent_at,
                        is_person=event.characters > 0 and is_person(event.user_id, self._bot_user_ids),
                        discover=self._discover,
                        use=use,
                        user_id=event.user_id,
                    )
                )
                if heard.discovered:
                    log.info("task_discovered", task_id=event.task_id, room_id=event.room_id, app_id=event.app_id)
                return _kind_of(heard)
            case TaskException() if event.code == callbacks.IDLE_AUTO_STOP:
                stop = AutoStop(event.app_id, event.task_id, sent_at, event.code, event.message, use)
                reason = (await self._store.submit(stop)).auto_stopped
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


def _kind_of(result: Received) -> str:
    if result.replayed:
        return "replayed"
    return "suspicious" if result.suspicious else "accepted"
