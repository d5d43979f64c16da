"""Operations on the sandbox, the same for scripts, the control API and Python."""

from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from watchdog.errors import ConfigError
from watchdog.sandbox.callbacks import CallbackEncoding
from watchdog.sandbox.kinds import FACTS, Kind
from watchdog.sandbox.misbehaviour import CallbackBehaviour, Misbehaviour
from watchdog.sandbox.products import ROOM_ID

RoomId = Annotated[str, Field(pattern=f"^{ROOM_ID.pattern}$")]
UserId = Annotated[str, Field(min_length=1, max_length=32)]
AppId = Annotated[int, Field(ge=1, lt=1 << 32)]


def _web_address(url: str) -> str:
    parts = urlsplit(url)
    # Reading an invalid port raises ValueError.
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("expected an address such as http://127.0.0.1:8765/callbacks/zego")
    return url


Url = Annotated[str, AfterValidator(_web_address)]

_STRICT: Final = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class _OfUser:
    """An operation on one user in a room; ``app_id`` None is the first app."""

    room: RoomId
    user: UserId
    app_id: AppId | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Join(_OfUser):
    """A user enters a room; role 4 is an admin, such as a recorder."""

    role: int = 1
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Leave(_OfUser):
    """A user leaves a room."""


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Crash(_OfUser):
    """A client dies silently: the vendor notices later, unless the user has logged in again by then."""


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Speak(_OfUser):
    """A user says something, and the tasks in the room recognise it."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Start:
    """Start a task in a room, as if the application had called the API.

    ``user`` is the id of the user that it brings into its room; ASR tasks and recordings bring none.
    """

    room: RoomId
    kind: Kind = Kind.ASR
    user: UserId | None = None
    max_idle_seconds: int | None = None
    app_id: AppId | None = None

    @field_validator("max_idle_seconds", "user")
    @classmethod
    def _fits_its_kind(cls, value: int | str | None, info: ValidationInfo) -> int | str | None:
        kind = info.data.get("kind")
        if kind is None or value is None:
            return value
        facts = FACTS[kind]
        if isinstance(value, int) and value not in facts.max_idle_range:
            least, most = facts.max_idle_range.start, facts.max_idle_range.stop - 1
            raise ValueError(f"expected {least} to {most} for kind {kind}")
        if isinstance(value, str) and facts.user_prefix is None:
            raise ValueError(f"a task of kind {kind} brings no user into its room")
        return value


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Stop:
    """Stop a task, as if the application had done it; the log has no Stop request for it.

    A graceful stop takes ``graceful_seconds``.
    """

    task_id: str
    graceful_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.0
    app_id: AppId | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class EndMedia:
    """The media of a player ends. The vendor ends the player when it has not played for its ``max_idle_seconds``."""

    task_id: str
    app_id: AppId | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Behave:
    """End all misbehaviours, including those of callbacks."""


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class SendCallbacks:
    """Send callbacks for all events from now on to ``url``."""

    url: Url
    encoding: CallbackEncoding = CallbackEncoding.JSON


Operation = (
    Join | Leave | Crash | Speak | Start | Stop | EndMedia | Misbehaviour | CallbackBehaviour | Behave | SendCallbacks
)

OPERATIONS: Final[Mapping[str, TypeAdapter[Operation]]] = {
    "join": TypeAdapter(Join),
    "leave": TypeAdapter(Leave),
    "crash": TypeAdapter(Crash),
    "speak": TypeAdapter(Speak),
    "start": TypeAdapter(Start),
    "stop": TypeAdapter(Stop),
    "end_media": TypeAdapter(EndMedia),
    "misbehave": TypeAdapter(Misbehaviour),
    "misbehave_callbacks": TypeAdapter(CallbackBehaviour),
    "behave": TypeAdapter(Behave),
    "send_callbacks": TypeAdapter(SendCallbacks),
}


def parse_operation(name: str, body: object) -> Operation:
    """Build the operation ``name`` from the fields in ``body``. Raises ConfigError, which names the wrong key."""
    adapter = OPERATIONS.get(name)
    if adapter is None:
        raise ConfigError(f"{name}: no such operation; there are {', '.join(OPERATIONS)}")
    if not isinstance(body, Mapping):
        raise ConfigError(f"{name}: expected a mapping of fields, got {type(body).__name__}")
    fields: dict[str, Any] = {str(key): value for key, value in body.items()}
    try:
        return adapter.validate_python(fields)
    except ValidationError as error:
        problems = (f"{'.'.join((name, *map(str, e['loc'])))}: {e['msg']}" for e in error.errors(include_url=False))
        raise ConfigError("; ".join(problems)) from error
