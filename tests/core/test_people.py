"""Who counts as a person, and how many people the vendor's two answers make together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.core.model import ADMIN_ROLE, RoomCount, RoomUser
from watchdog.core.people import Counted, count_as, exactly, is_person, people, with_bots

PATTERNS = ("asr-*", "agent[0-9]")


@pytest.mark.parametrize(
    ("user_id", "role", "person"),
    [
        ("alice", 1, True),
        ("alice", None, True),
        ("ASR-1", 1, True),
        ("my-asr-1", 1, True),
        ("asr-1", 1, False),
        ("agent7", None, False),
        ("alice", ADMIN_ROLE, False),
        ("asr-1", ADMIN_ROLE, False),
        (None, None, True),
    ],
)
def test_a_person_is_neither_an_admin_nor_a_bot(user_id: str | None, role: int | None, *, person: bool) -> None:
    assert is_person(user_id, PATTERNS, role=role) is person
    if user_id is not None:
        assert count_as(RoomUser(user_id, "", role), PATTERNS).is_person is person


def test_the_first_pattern_that_matches_is_named() -> None:
    assert count_as(RoomUser("asr-7", "", 1), ("bot-*", *PATTERNS, "asr-7")).pattern == "asr-*"
    assert count_as(RoomUser("alice", "", 1), PATTERNS).pattern is None


ids = st.text("ab*?[]!-", max_size=6)


@given(ids, ids)
def test_a_known_bot_is_matched_exactly(bot: str, user: str) -> None:
    assert is_person(user, [exactly(bot)]) is (user != bot)


def test_known_bots_come_after_the_patterns() -> None:
    assert list(with_bots(PATTERNS, ["helper[1]", None, "asr-1", "helper[1]"])) == [*PATTERNS, "helper[[]1]", "asr-1"]
    assert with_bots(PATTERNS, [None]) is PATTERNS
    assert count_as(RoomUser("asr-1", "", 1), with_bots(PATTERNS, ["asr-1"])).pattern == "asr-*"


def counted(bots: int, strangers: int, admin_bots: int, admins: int) -> list[Counted]:
    kinds = [
        ("asr-", 1, bots),
        ("person-", 2, strangers),
        ("asr-admin-", ADMIN_ROLE, admin_bots),
        ("rec-", ADMIN_ROLE, admins),
    ]
    return [
        count_as(RoomUser(f"{name}{number}", "", role), PATTERNS)
        for name, role, many in kinds
        for number in range(many)
    ]


few = st.integers(0, 8)


@given(few, few, few, few)
def test_of_one_moment_the_number_is_exact(bots: int, strangers: int, admin_bots: int, admins: int) -> None:
    count = RoomCount(bots + strangers + admin_bots + admins, admin_bots + admins)
    assert people(count, counted(bots, strangers, admin_bots, admins)) == strangers


@given(few, few, few, few, few, few)
def test_a_person_in_either_answer_is_never_lost(
    bots: int, strangers: int, admin_bots: int, admins: int, users: int, counted_admins: int
) -> None:
    count = RoomCount(users + counted_admins, counted_admins)
    number = people(count, counted(bots, strangers, admin_bots, admins))
    assert number >= strangers
    assert number >= count.people - bots
