"""What one can do to the sandbox from outside its API: the same operations for scripts, the control API and Python."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from watchdog.errors import ConfigError
from watchdog.sandbox.misbehaviour import Misbehaviour
from watchdog.sandbox.vendor import MAX_IDLE_SECONDS, ROOM_ID

RoomId = Annotated[str, Field(pattern=f"^{ROOM_ID.pattern}$")]
UserId = Annotated[str, Field(min_length=1, max_length=32)]
AppId = Annotated[int, Field(ge=1, lt=1 << 32)]

_STRICT: Final = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Join:
    """Somebody enters a room; role 4 is an admin such as a recorder. ``app_id`` None is the first app."""

    room: RoomId
    user: UserId
    role: int = 1
    name: str | None = None
    app_id: AppId | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Leave:
    """Somebody leaves a room."""

    room: RoomId
    user: UserId
    app_id: AppId | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Start:
    """A task is started in a room, as if the application had called the API."""

    room: RoomId
    max_idle_seconds: Annotated[int, Field(ge=MAX_IDLE_SECONDS.start, lt=MAX_IDLE_SECONDS.stop)] | None = None
    app_id: AppId | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Stop:
    """The application stops its own task; no Stop request appears in the log."""

    task_id: str
    app_id: AppId | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Behave:
    """Every misbehaviour ends."""


Operation = Join | Leave | Start | Stop | Misbehaviour | Behave

OPERATIONS: Final[Mapping[str, TypeAdapter[Operation]]] = {
    "join": TypeAdapter(Join),
    "leave": TypeAdapter(Leave),
    "start": TypeAdapter(Start),
    "stop": TypeAdapter(Stop),
    "misbehave": TypeAdapter(Misbehaviour),
    "behave": TypeAdapter(Behave),
}


def parse_operation(name: str, body: object) -> Operation:
    """Build the operation called ``name`` from the fields in ``body``; ConfigError names the key that is wrong."""
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
