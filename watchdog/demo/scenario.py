"""The demo's scenario as data: fourteen rooms, and the steps in each, in seconds from the start.

Each room shows one real problem. Vendor and daemon do not know the scenario; ``verdict`` compares their result with
each room's ``Expected``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from watchdog.sandbox import Action, Drop, Join, Kind, Misbehaviour
from watchdog.sandbox.world import ADMIN_ROLE

AGENT_USER: Final = "agent"
"""The user that the agent brings into its room."""


class Expected(StrEnum):
    STOPPED = "stopped by the watchdog"
    RESTARTED = "stopped by the watchdog, and started again by its backend"
    KEPT = "kept, because people came back"
    SPARED = "spared, and kept"
    LEFT = "left to ZEGO"
    RELEASED = "ended by its own backend"


@dataclass(frozen=True, slots=True)
class Start:
    """The backend starts a task, of ASR or an agent, and writes its row."""

    kind: Kind = Kind.ASR


@dataclass(frozen=True, slots=True)
class People:
    """The number of people in the room from now on; ``reported`` tells whether the backend writes it."""

    count: int
    reported: bool = True


@dataclass(frozen=True, slots=True)
class Hold:
    """An operator holds the task for ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Release:
    """The backend stops its own task, and records it."""


@dataclass(frozen=True, slots=True)
class Callbacks:
    """ZEGO sends callbacks to the daemon from now on."""


Event = Start | People | Hold | Release | Callbacks | Join | Misbehaviour
"""What the backend or an operator does, or else an operation on the sandbox."""


@dataclass(frozen=True, slots=True)
class Step:
    """One event; ``caption`` describes it on the screen."""

    at: float
    room: str
    event: Event
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Timing:
    """The daemon's policy with the shortest allowed times; names as in ``config.yaml``."""

    max_idle_seconds: int = 30
    grace_seconds: float = 6
    never_joined_grace_seconds: float = 10
    safety_margin_seconds: float = 5
    confirm_seconds: float = 2
    poll_seconds: float = 1


@dataclass(frozen=True, slots=True)
class Scenario:
    """``seconds`` is the length; ``seed`` determines TaskIds and RequestIds."""

    rooms: dict[str, Expected]
    steps: tuple[Step, ...]
    seconds: float
    timing: Timing = field(default_factory=Timing)
    seed: int = 1


def _opens(at: float, room: str, people: int, caption: str = "", kind: Kind = Kind.ASR) -> Iterator[Step]:
    yield Step(at, room, Start(kind), caption)
    yield Step(at, room, People(people))


_STOP: Final = Action.STOP

SCENARIO: Final = Scenario(
    rooms={
        "standup": Expected.RESTARTED,
        "lobby": Expected.STOPPED,
        "coffee": Expected.KEPT,
        "clinic": Expected.SPARED,
        "lecture": Expected.RESTARTED,
        "podcast": Expected.STOPPED,
        "support": Expected.STOPPED,
        "sales": Expected.RELEASED,
        "legacy": Expected.LEFT,
        "webinar": Expected.STOPPED,
        "oncall": Expected.STOPPED,
        "review": Expected.STOPPED,
        "quiz": Expected.STOPPED,
        "retro": Expected.STOPPED,
    },
    steps=(
        *_opens(0.0, "standup", 3, "people join; the backend starts a task and inserts a row"),
        *_opens(0.5, "lobby", 0, "an AI agent is started, but nobody joins it", Kind.AGENT),
        *_opens(1.0, "coffee", 2),
        *_opens(1.5, "clinic", 2),
        *_opens(2.0, "lecture", 9),
        *_opens(2.5, "podcast", 2),
        Step(2.5, "podcast", Join(room="podcast", user="recorder", role=ADMIN_ROLE)),
        *_opens(3.0, "support", 2),
        *_opens(3.5, "sales", 4),
        Step(4.0, "legacy", Start(), "the backend crashes and never reports people"),
        Step(4.0, "legacy", People(1, reported=False)),
        *_opens(4.5, "webinar", 7),
        *_opens(5.0, "oncall", 2),
        *_opens(5.5, "review", 3),
        Step(6.0, "standup", People(0), "everybody leaves, and the backend forgets the task"),
        *_opens(6.5, "quiz", 5),
        *_opens(7.0, "retro", 4),
        Step(7.5, "legacy", People(0, reported=False), "everybody leaves, unreported"),
        Step(8.0, "coffee", People(0), "everybody leaves"),
        Step(8.5, "oncall", People(0), "everybody leaves; an operator holds the task for 20 s"),
        Step(8.5, "oncall", Hold(20)),
        Step(9.0, "clinic", People(0), "everybody leaves"),
        Step(10.0, "lecture", People(0), "everybody leaves"),
        Step(11.0, "clinic", People(2, reported=False), "people come back, but the backend does not report it"),
        Step(12.0, "coffee", People(1), "one person comes back within the grace period"),
        Step(12.5, "podcast", People(0), "only the recorder is left: ZEGO would never stop this"),
        Step(13.5, "lecture", Misbehaviour(action=_STOP, requests=1, http_status=500)),
        Step(14.5, "support", People(0), "everybody leaves"),
        Step(15.5, "coffee", People(4), "more people join"),
        Step(16.5, "sales", People(0), "everybody leaves"),
        Step(17.0, "retro", People(0), "everybody leaves"),
        Step(17.5, "webinar", People(0), "everybody leaves"),
        # Until now the rooms show what happens without callbacks.
        Step(18.0, "standup", Callbacks()),
        Step(18.0, "standup", People(3), "people come back: ZEGO's callback tells the watchdog"),
        Step(18.5, "sales", Release(), "the backend stops the task itself, and records it"),
        Step(19.5, "support", Misbehaviour(action=_STOP, requests=1, code=206)),
        Step(21.0, "retro", People(2), "people come back within the grace period"),
        Step(22.5, "webinar", Misbehaviour(action=_STOP, requests=1, drop_reply=Drop.AFTER)),
        Step(25.0, "review", People(0), "everybody leaves"),
        Step(26.0, "retro", People(0), "everybody leaves again: the grace period starts again"),
        Step(27.0, "lecture", People(2), "people come back"),
        Step(28.0, "quiz", People(0), "everybody leaves"),
        Step(30.0, "review", Misbehaviour(action=_STOP, requests=1, reply_latency_seconds=(2.5, 2.5))),
        Step(33.0, "quiz", Misbehaviour(action=Action.USER_NUM, requests=1, http_status=503)),
    ),
    seconds=40,
)
