"""Who in a room counts as a person: users that are neither admins nor bots. The only place with this rule.

    people = UserCount - AdminUserCount - users whose id matches ``zego.bot_user_ids``

Patterns are shell patterns (``fnmatch``), matched with case. The user that a registered task brings into its room
(``zego_tasks.bot_user_id``) is a bot as well: ``exactly`` makes a pattern of its id.
"""

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from watchdog.core.model import ADMIN_ROLE, RoomCount, RoomUser

BOTS_AT_MOST: Final = 20
"""If more users than this remain without the admins, they are taken to be people and no list is read."""

_SPECIAL: Final = re.compile(r"[*?[]")


@dataclass(frozen=True, slots=True)
class Counted:
    """A user and what it counts as: an admin, a bot because of ``pattern``, or a person if neither."""

    user: RoomUser
    pattern: str | None
    is_person: bool

    @property
    def is_admin(self) -> bool:
        """Whether the vendor has subtracted this user already."""
        return self.user.role == ADMIN_ROLE


def exactly(user_id: str) -> str:
    """Return the pattern that matches this id only."""
    return glob.escape(user_id)


def with_bots(patterns: Sequence[str], bot_user_ids: Iterable[str | None]) -> Sequence[str]:
    """Return ``patterns``, and after them those of the ids that are known to be bots."""
    known = [exactly(user_id) for user_id in bot_user_ids if user_id is not None]
    return [*patterns, *dict.fromkeys(known)] if known else patterns


def is_person(user_id: str | None, patterns: Sequence[str], *, role: int | None = None) -> bool:
    """Whether a user counts as a person; one without an id might be anybody, so it does."""
    return role != ADMIN_ROLE and (user_id is None or _matching(user_id, patterns) is None)


def count_as(user: RoomUser, patterns: Sequence[str]) -> Counted:
    """Say what a user counts as, and by which pattern (the first that matches)."""
    return Counted(user, _matching(user.user_id, patterns), is_person(user.user_id, patterns, role=user.role))


def people(count: RoomCount, counted: Sequence[Counted]) -> int:
    """Return the number of people, from the vendor's numbers and its complete list of users.

    The two replies are from two moments and may disagree; the higher number counts. A bot that is also an admin has
    been subtracted already.
    """
    bots = sum(not one.is_admin and not one.is_person for one in counted)
    return max(0, count.people - bots, sum(one.is_person for one in counted))


def _matching(user_id: str, patterns: Sequence[str]) -> str | None:
    return next((pattern for pattern in patterns if _matches(user_id, pattern)), None)


def _matches(user_id: str, pattern: str) -> bool:
    # Each agent has an id of its own: to compile an expression for each would cost more than all else.
    return fnmatchcase(user_id, pattern) if _SPECIAL.search(pattern) else user_id == pattern
