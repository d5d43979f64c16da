"""The vendor's kinds of tasks: what each brings into its room, and when the vendor itself ends it. Pure.

The daemon has a table of kinds too. The sandbox does not read it, because it judges the daemon.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Kind(StrEnum):
    ASR = "asr"
    AGENT = "agent"
    DIGITAL_HUMAN = "digital_human"
    PLAYER = "player"
    RECORDING = "recording"


class Idle(StrEnum):
    """When the vendor calls a task idle."""

    NO_USER = "no_user"
    """Its room has no user, not even one that another task brought."""
    NO_VISITOR = "no_visitor"
    """Its room has no user except those that tasks brought."""
    NOT_DRIVEN = "not_driven"
    """Nobody drives it, here from its start. The room does not matter."""
    NOT_PLAYING = "not_playing"
    """Its media has ended. The room does not matter."""


OF_THE_ROOM: Final = frozenset({Idle.NO_USER, Idle.NO_VISITOR})
"""The rules that look at the room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the vendor documents of one kind.

    An idle task ends after ``max_idle_seconds``, unless it was started with another value within ``max_idle_range``;
    any task ends after ``life_seconds``. ``account_limit`` is the number of tasks that an AppId may run; 0: the vendor
    names none. A task of a kind with a ``user_prefix`` joins its room as a user.
    """

    idle: Idle
    max_idle_seconds: int
    max_idle_range: range
    life_seconds: float | None = None
    account_limit: int = 0
    user_prefix: str | None = None


FACTS: Final[Mapping[Kind, Facts]] = MappingProxyType(
    {
        Kind.ASR: Facts(idle=Idle.NO_USER, max_idle_seconds=120, max_idle_range=range(30, 1801), account_limit=10),
        Kind.AGENT: Facts(
            # The vendor looks at one named user; here any visitor counts.
            idle=Idle.NO_VISITOR,
            max_idle_seconds=120,
            max_idle_range=range(10, 1801),
            account_limit=10,
            user_prefix="agent",
        ),
        Kind.DIGITAL_HUMAN: Facts(
            idle=Idle.NOT_DRIVEN,
            max_idle_seconds=900,
            max_idle_range=range(30, 86401),
            life_seconds=86400,
            user_prefix="digital",
        ),
        Kind.PLAYER: Facts(
            idle=Idle.NOT_PLAYING,
            max_idle_seconds=300,
            max_idle_range=range(5, 3001),
            account_limit=50,
            user_prefix="player",
        ),
        Kind.RECORDING: Facts(
            # The vendor looks at streams and whiteboards; here every user publishes one.
            idle=Idle.NO_USER,
            max_idle_seconds=30,
            max_idle_range=range(5, 86401),
            life_seconds=86400,
            account_limit=200,
        ),
    }
)
