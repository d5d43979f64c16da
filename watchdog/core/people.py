"""Who counts as a person. Pure."""

from collections.abc import Iterable
from fnmatch import fnmatchcase


def is_person(user_id: str, patterns: Iterable[str]) -> bool:
    """Whether no pattern of ``zego.bot_user_ids`` matches; shell patterns, matched with case."""
    return not any(fnmatchcase(user_id, pattern) for pattern in patterns)
