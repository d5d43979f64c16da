"""The play as pure data: fourteen rooms, and what happens in them when, in seconds from the beginning.

Each room shows one thing that happens to real ones. Vendor and daemon are not told anything of this: what they do
about it is theirs, and ``verdict`` compares it with each room's ``fate``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from watchdog.sandbox import Action, Drop, Misbehaviour


class Fate(StrEnum):
    """How a room's task has to end."""

    STOPPED = "stopped by the watchdog"
    KEPT = "kept, for people came back"
    SPARED = "spared, and kept"
    LEFT = "left to ZEGO"
    RELEASED = "ended by its own backend"


@dataclass(frozen=True, slots=True)
class Start:
    """The backend starts a task and writes its row."""


@dataclass(frozen=True, slots=True)
class People:
    """So many people are in the room from now on; ``said`` is whether the backend writes that down."""

    count: int
    said: bool = True


@dataclass(frozen=True, slots=True)
class Recorder:
    """A recorder logs in: a user to ZEGO, and nobody who talks."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Somebody asks the watchdog to leave the task alone for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Release:
    """The backend stops its own task, and says so."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """The vendor misbehaves from now on, as often as it is told to."""

    how: Misbehaviour


Event = Start | People | Recorder | Hold | Release | Trouble


@dataclass(frozen=True, slots=True)
class Beat:
    """One event; ``caption`` says in words what is going on, where it is worth a line."""

    at: float
    room: str
    event: Event
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Timing:
    """The daemon's policy, scaled down as far as its bounds allow; names and meaning as in ``config.yaml``."""

    max_idle_seconds: int = 30
    grace_seconds: float = 6
    never_joined_grace_seconds: float = 10
    safety_margin_seconds: float = 5
    confirm_seconds: float = 2
    poll_seconds: float = 1


@dataclass(frozen=True, slots=True)
class Story:
    """``seconds`` is when the curtain falls; ``seed`` gives TaskIds and RequestIds."""

    rooms: dict[str, Fate]
    beats: tuple[Beat, ...]
    seconds: float
    timing: Timing = field(default_factory=Timing)
    seed: int = 1


def _opens(at: float, room: str, people: int, caption: str = "") -> Iterator[Beat]:
    yield Beat(at, room, Start(), caption)
    yield Beat(at, room, People(people))


def _trouble(at: float, room: str, how: Misbehaviour) -> Beat:
    return Beat(at, room, Trouble(how))


_STOP: Final = Action.STOP

STORY: Final = Story(
    rooms={
        "standup": Fate.STOPPED,
        "lobby": Fate.STOPPED,
        "coffee": Fate.KEPT,
        "clinic": Fate.SPARED,
        "lecture": Fate.STOPPED,
        "podcast": Fate.STOPPED,
        "support": Fate.STOPPED,
        "sales": Fate.RELEASED,
        "legacy": Fate.LEFT,
        "webinar": Fate.STOPPED,
        "oncall": Fate.STOPPED,
        "review": Fate.STOPPED,
        "quiz": Fate.STOPPED,
        "retro": Fate.STOPPED,
    },
    beats=(
        *_opens(0.0, "standup", 3, "people come in; their backend starts a task and writes a row"),
        *_opens(0.5, "lobby", 0, "a task is started, and nobody comes"),
        *_opens(1.0, "coffee", 2),
        *_opens(1.5, "clinic", 2),
        *_opens(2.0, "lecture", 9),
        *_opens(2.5, "podcast", 2),
        Beat(2.5, "podcast", Recorder()),
        *_opens(3.0, "support", 2),
        *_opens(3.5, "sales", 4),
        Beat(4.0, "legacy", Start(), "its backend crashes and never says who is there"),
        Beat(4.0, "legacy", People(1, said=False)),
        *_opens(4.5, "webinar", 7),
        *_opens(5.0, "oncall", 2),
        *_opens(5.5, "review", 3),
        Beat(6.0, "standup", People(0), "everybody leaves, and the backend forgets the task"),
        *_opens(6.5, "quiz", 5),
        *_opens(7.0, "retro", 4),
        Beat(7.5, "legacy", People(0, said=False), "everybody leaves; nobody says so"),
        Beat(8.0, "coffee", People(0), "everybody leaves"),
        Beat(8.5, "oncall", People(0), "everybody leaves; an operator holds the task for 20 s"),
        Beat(8.5, "oncall", Hold(20)),
        Beat(9.0, "clinic", People(0), "everybody leaves"),
        Beat(10.0, "lecture", People(0), "everybody leaves"),
        Beat(11.0, "clinic", People(2, said=False), "people come back, and the backend forgets to say so"),
        Beat(12.0, "coffee", People(1), "somebody comes back within the grace"),
        Beat(12.5, "podcast", People(0), "only the recorder is left: ZEGO would never stop this"),
        _trouble(13.5, "lecture", Misbehaviour(action=_STOP, requests=1, http_status=500)),
        Beat(14.5, "support", People(0), "everybody leaves"),
        Beat(15.5, "coffee", People(4), "more people come"),
        Beat(16.5, "sales", People(0), "everybody leaves"),
        Beat(17.0, "retro", People(0), "everybody leaves"),
        Beat(17.5, "webinar", People(0), "everybody leaves"),
        Beat(18.5, "sales", Release(), "its backend stops the task itself, and says so"),
        _trouble(19.5, "support", Misbehaviour(action=_STOP, requests=1, code=206)),
        Beat(21.0, "retro", People(2), "people come back within the grace"),
        _trouble(22.5, "webinar", Misbehaviour(action=_STOP, requests=1, drop_reply=Drop.AFTER)),
        Beat(25.0, "review", People(0), "everybody leaves"),
        Beat(26.0, "retro", People(0), "everybody leaves again: the grace begins anew"),
        Beat(28.0, "quiz", People(0), "everybody leaves"),
        _trouble(30.0, "review", Misbehaviour(action=_STOP, requests=1, reply_latency_seconds=(2.5, 2.5))),
        _trouble(33.0, "quiz", Misbehaviour(action=Action.USER_NUM, requests=1, http_status=503)),
    ),
    seconds=40,
)
