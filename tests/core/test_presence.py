"""Who is in a room, with callbacks in any order, repeated, and to some extent lost."""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from watchdog.core.callbacks import (
    Event,
    RoomClosed,
    RoomCreated,
    Seal,
    TaskException,
    Unrecognised,
    UserJoined,
    UserLeft,
    Utterance,
)
from watchdog.core.model import ADMIN_ROLE
from watchdog.core.presence import (
    Facts,
    Join,
    Present,
    RoomFact,
    UserFact,
    combined,
    current_session,
    facts_of,
    present,
)

APP, ROOM = 1, "room"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SEAL = Seal(APP, START.timestamp(), "1772366400", "nonce", "signature")
BOTS = ("bot-*",)

RoomRows = dict[str, RoomFact]
UserRows = dict[tuple[str, str, str], UserFact]


def at(milliseconds: int) -> datetime:
    """Return a moment in milliseconds from START."""
    return START + timedelta(milliseconds=milliseconds)


def created(time: int, session: str = "1") -> RoomCreated:
    return RoomCreated(SEAL, ROOM, session, at(time))


def closed(time: int, session: str = "1") -> RoomClosed:
    return RoomClosed(SEAL, ROOM, session, at(time), 0)


def joined(time: int, user: str, session: str, room_session: str = "1", role: int | None = 1) -> UserJoined:
    return UserJoined(SEAL, ROOM, room_session, user, session, at(time), role)


def left(
    time: int, user: str, session: str, login: int | None, room_session: str = "1", role: int | None = None
) -> UserLeft:
    return UserLeft(SEAL, ROOM, room_session, user, session, None if login is None else at(login), at(time), role)


def rows_of(events: Iterable[Event]) -> tuple[RoomRows, UserRows]:
    """Add the events one after the other, as the store does."""
    rooms: RoomRows = {}
    users: UserRows = {}
    for event in events:
        facts = facts_of(event)
        assert facts is not None
        room, user = facts.room, facts.user
        known = rooms.get(room.room_session_id)
        rooms[room.room_session_id] = combined(known, room)
        if user is not None:
            key = user.room_session_id, user.user_id, user.session_id
            users[key] = combined(users.get(key), user)
    return rooms, users


def seen(events: Iterable[Event], bots: Sequence[str] = BOTS) -> Present:
    rooms, users = rows_of(events)
    result = present(rooms.values(), users.values(), bots)
    assert result is not None
    return result


def people(*events: Event) -> set[str]:
    return set(seen(events).people)


# -- a vendor to draw histories from ---------------------------------------------------------------------------------

USERS = ("alice", "bob", "carol", "bot-asr", "recorder")


@dataclass
class Vendor:
    """The callbacks of one room in the true order; no user is in two sessions."""

    now: int = 0
    ids: int = 0
    session: str | None = None
    inside: dict[str, UserJoined] = field(default_factory=dict)
    callbacks: list[Event] = field(default_factory=list)

    def _tell(self, event: Event) -> None:
        self.callbacks.append(event)

    def _new_id(self) -> str:
        self.ids += 1
        # Ids that do not grow with time, and whose order as text is not their order as numbers.
        return str(self.ids * 7919 % 1009)

    def step(self, gap: int, user: str, action: str) -> None:
        self.now += gap
        match action:
            case "join" if user not in self.inside:
                self._login(user)
            case "leave" if user in self.inside:
                self._logout(self.inside.pop(user))
            case "reconnect" if user in self.inside:
                old = self.inside.pop(user)
                self._login(user)
                # The vendor notices later that the old connection is closed.
                self.now += gap
                self._logout(old)
            case _:
                return
        if not self.inside:
            self.now += gap
            assert self.session is not None
            self._tell(closed(self.now, self.session))
            self.session = None

    def _login(self, user: str) -> None:
        if self.session is None:
            self.session = self._new_id()
            self._tell(created(self.now, self.session))
        role = ADMIN_ROLE if user == "recorder" else 1
        self.inside[user] = login = joined(self.now, user, self._new_id(), self.session, role)
        self._tell(login)

    def _logout(self, login: UserJoined) -> None:
        self._tell(
            UserLeft(
                SEAL,
                ROOM,
                login.room_session_id,
                login.user_id,
                login.session_id,
                login.login_at,
                at(self.now),
                login.role,
            )
        )


STEPS = st.lists(
    st.tuples(
        st.integers(min_value=1, max_value=60_000),
        st.sampled_from(USERS),
        st.sampled_from(["join", "join", "leave", "reconnect"]),
    ),
    min_size=1,
    max_size=25,
)


def played(steps: Iterable[tuple[int, str, str]]) -> Vendor:
    vendor = Vendor()
    for gap, user, action in steps:
        vendor.step(gap, user, action)
    assume(vendor.callbacks)
    return vendor


def humans(users: Iterable[str]) -> set[str]:
    return {user for user in users if user not in {"bot-asr", "recorder"}}


def naive(events: Iterable[Event]) -> set[str]:
    """The vendor's recipe for callbacks in order: a list that is edited."""
    inside: dict[str, str] = {}
    for event in events:
        match event:
            case RoomCreated() | RoomClosed():
                inside.clear()
            case UserJoined():
                inside[event.user_id] = event.session_id
            case UserLeft() if inside.get(event.user_id) == event.session_id:
                del inside[event.user_id]
    return set(inside)


HISTORIES = STEPS.map(played)

unhurried = settings(deadline=None)
"""Long histories take long to generate on a busy machine."""


@unhurried
@given(HISTORIES)
def test_without_loss_it_equals_the_ordered_recipe_at_every_moment(vendor: Vendor) -> None:
    for length in range(1, len(vendor.callbacks) + 1):
        known = vendor.callbacks[:length]
        result = seen(known)
        assert result.people | result.bots | result.admins == naive(known)
        assert result.people == humans(naive(known))
        assert result.bots <= {"bot-asr"}
        assert result.admins <= {"recorder"}
        assert result.complete
    assert naive(vendor.callbacks) == set(vendor.inside)
    assert seen(vendor.callbacks).closed is (vendor.session is None)


@unhurried
@given(HISTORIES, st.data())
def test_any_permutation_and_duplication_leads_to_the_same_rows_and_occupancy(
    vendor: Vendor, data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(vendor.callbacks), max_size=len(vendor.callbacks)))
    shuffled = data.draw(st.permutations(vendor.callbacks + again))
    assert rows_of(shuffled) == rows_of(vendor.callbacks)
    assert seen(shuffled) == seen(vendor.callbacks)
    rooms, users = rows_of(shuffled)
    assert present(
        data.draw(st.permutations(list(rooms.values()))), data.draw(st.permutations(list(users.values()))), BOTS
    ) == seen(vendor.callbacks)


TIMES = st.integers(min_value=0, max_value=20)
EVENTS = st.one_of(
    st.builds(created, TIMES, st.sampled_from("123")),
    st.builds(closed, TIMES, st.sampled_from("123")),
    st.builds(joined, TIMES, st.sampled_from("ab"), st.sampled_from("123"), st.sampled_from("123"), st.just(1)),
    st.builds(
        left,
        TIMES,
        st.sampled_from("ab"),
        st.sampled_from("123"),
        TIMES | st.none(),
        st.sampled_from("123"),
        st.sampled_from([None, 1, ADMIN_ROLE]),
    ),
)


@unhurried
@given(st.lists(EVENTS, min_size=1, max_size=12), st.data())
def test_even_callbacks_that_contradict_each_other_converge(events: list[Event], data: st.DataObject) -> None:
    other = data.draw(st.permutations(events + data.draw(st.lists(st.sampled_from(events), max_size=5))))
    assert rows_of(other) == rows_of(events)
    rooms, users = rows_of(events)
    assert present(
        data.draw(st.permutations(list(rooms.values()))), data.draw(st.permutations(list(users.values()))), BOTS
    ) == seen(events)


@unhurried
@given(HISTORIES, st.data())
def test_the_rows_of_several_daemons_merge_into_those_of_one(vendor: Vendor, data: st.DataObject) -> None:
    split = data.draw(st.lists(st.booleans(), min_size=len(vendor.callbacks), max_size=len(vendor.callbacks)))
    halves = [
        rows_of(event for event, mine in zip(vendor.callbacks, split, strict=True) if mine is side)
        for side in (True, False)
    ]
    whole_rooms, whole_users = rows_of(vendor.callbacks)
    for mine, theirs in (halves, halves[::-1]):
        rooms = {**mine[0], **theirs[0], **{k: combined(mine[0][k], theirs[0][k]) for k in mine[0].keys() & theirs[0]}}
        users = {**mine[1], **theirs[1], **{k: combined(mine[1][k], theirs[1][k]) for k in mine[1].keys() & theirs[1]}}
        assert (rooms, users) == (whole_rooms, whole_users)


@unhurried
@given(HISTORIES, st.data())
def test_a_lost_login_or_logout_changes_at_most_that_user(vendor: Vendor, data: st.DataObject) -> None:
    lost = data.draw(st.sampled_from([event for event in vendor.callbacks if isinstance(event, UserJoined | UserLeft)]))
    rest = [event for event in vendor.callbacks if event is not lost]
    result = seen(rest)
    assert (result.people | result.bots | result.admins) ^ set(vendor.inside) <= {lost.user_id}
    assert seen(data.draw(st.permutations(rest))) == result


@unhurried
@given(HISTORIES, st.data())
def test_a_lost_create_or_close_changes_no_user_but_may_be_incomplete(vendor: Vendor, data: st.DataObject) -> None:
    lost = data.draw(st.sampled_from([e for e in vendor.callbacks if isinstance(e, RoomCreated | RoomClosed)]))
    result = seen(event for event in vendor.callbacks if event is not lost)
    assert result.people | result.bots | result.admins == set(vendor.inside)
    if vendor.session is not None:
        assert result.complete is not (isinstance(lost, RoomCreated) and lost.room_session_id == vendor.session)


@unhurried
@given(HISTORIES, st.integers(min_value=1, max_value=1000))
def test_a_new_session_forgets_the_users_of_the_old_ones_even_if_every_logout_was_lost(
    vendor: Vendor, gap: int
) -> None:
    known: list[Event] = [e for e in vendor.callbacks if not isinstance(e, UserLeft | RoomClosed)]
    fresh = joined(vendor.now + gap, "zoe", "99999", "5")
    for new in ([created(vendor.now + gap, "5"), fresh], [fresh]):
        for order in (known + new, new + known):
            assert people(*order) == {"zoe"}


@unhurried
@given(HISTORIES, st.integers(min_value=1, max_value=1000))
def test_a_user_that_reconnects_stays_whenever_the_old_logout_comes(vendor: Vendor, gap: int) -> None:
    assume(vendor.inside)
    user, old = next(iter(vendor.inside.items()))
    new = replace(old, session_id="99999", login_at=at(vendor.now + gap))
    logout = UserLeft(
        SEAL, ROOM, old.room_session_id, user, old.session_id, old.login_at, at(vendor.now + 2 * gap), old.role
    )
    before = seen(vendor.callbacks)
    orders: list[list[Event]] = [[new], [new, logout], [logout, new]]
    for order in orders:
        after = seen(vendor.callbacks + order)
        assert (after.people, after.bots, after.admins) == (before.people, before.bots, before.admins)


# -- joins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fact", [RoomFact, UserFact])
def test_every_column_is_part_of_the_key_or_has_a_join(fact: type[RoomFact] | type[UserFact]) -> None:
    assert [column.name for column in fields(fact)] == [*fact.KEY, *fact.JOINS]


NUMBERS = st.none() | TIMES
FUNCTIONS = {
    "sqlite": {Join.MIN: "min", Join.MAX: "max"},
    "postgresql": {Join.MIN: "least", Join.MAX: "greatest"},
}


def upsert(database: str) -> str:
    """Return the statement of the module's docstring, for a table of the times in seconds from START."""
    joins = ", ".join(
        f"{c} = coalesce({FUNCTIONS[database][join]}(facts.{c}, excluded.{c}), facts.{c}, excluded.{c})"
        for c, join in UserFact.JOINS.items()
    )
    mark = "?" if database == "sqlite" else "%s"
    return f"INSERT INTO facts VALUES (1, {mark}, {mark}, {mark}) ON CONFLICT (id) DO UPDATE SET {joins}"


TABLE = "CREATE TABLE facts (id int PRIMARY KEY, login_at int, logout_at int, role int)"
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=6)


def merged(rows: Sequence[tuple[int | None, int | None, int | None]]) -> tuple[int | None, int | None, int | None]:
    def moment(seconds: int | None) -> datetime | None:
        return None if seconds is None else at(seconds * 1000)

    def seconds(moment: datetime | None) -> int | None:
        return None if moment is None else int((moment - START).total_seconds())

    facts = [
        UserFact(APP, ROOM, "1", "alice", "s", login_at=moment(a), logout_at=moment(b), role=c) for a, b, c in rows
    ]
    whole = facts[0]
    for fact in facts[1:]:
        whole = combined(whole, fact)
    return seconds(whole.login_at), seconds(whole.logout_at), whole.role


@given(ROWS)
def test_the_upsert_of_the_docstring_is_the_join_on_sqlite(
    rows: list[tuple[int | None, int | None, int | None]],
) -> None:
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute(TABLE)
        for row in rows:
            connection.execute(upsert("sqlite"), row)
        assert connection.execute("SELECT login_at, logout_at, role FROM facts").fetchall() == [merged(rows)]
    finally:
        connection.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_the_upsert_of_the_docstring_is_the_join_on_postgresql(
    postgresql_server: str, rows: list[tuple[int | None, int | None, int | None]]
) -> None:
    with psycopg.connect(postgresql_server) as connection:
        connection.execute(TABLE.replace("TABLE", "TEMPORARY TABLE"))
        for row in rows:
            connection.execute(upsert("postgresql"), row)
        assert connection.execute("SELECT login_at, logout_at, role FROM facts").fetchall() == [merged(rows)]
        connection.rollback()


# -- cases -----------------------------------------------------------------------------------------------------------


def test_a_login_says_when_the_room_was_first_seen_and_a_logout_too() -> None:
    assert facts_of(joined(5, "alice", "s", role=2)) == Facts(
        RoomFact(APP, ROOM, "1", first_seen_at=at(5)),
        UserFact(APP, ROOM, "1", "alice", "s", login_at=at(5), role=2),
    )
    assert facts_of(left(9, "alice", "s", 5)) == Facts(
        RoomFact(APP, ROOM, "1", first_seen_at=at(5)),
        UserFact(APP, ROOM, "1", "alice", "s", login_at=at(5), logout_at=at(9)),
    )
    assert facts_of(left(9, "alice", "s", None)) == Facts(
        RoomFact(APP, ROOM, "1", first_seen_at=at(9)), UserFact(APP, ROOM, "1", "alice", "s", logout_at=at(9))
    )


def test_of_two_times_for_one_event_of_the_room_the_rows_keep_the_widest() -> None:
    rooms, _ = rows_of([created(2), created(1), closed(8), closed(9), joined(4, "a", "s"), joined(3, "a", "s")])
    assert rooms["1"] == RoomFact(APP, ROOM, "1", created_at=at(1), closed_at=at(9), first_seen_at=at(3))


def test_events_of_tasks_are_no_facts_of_presence() -> None:
    for event in (
        Utterance(SEAL, ROOM, "task", "alice", 3),
        TaskException(SEAL, ROOM, "task", 1202, ""),
        Unrecognised(SEAL, "stream_create"),
    ):
        assert facts_of(event) is None


def test_an_unknown_room_is_unknown_not_empty() -> None:
    assert present([], [], BOTS) is None
    assert present([RoomFact(APP, ROOM, "1")], [UserFact(APP, ROOM, "1", "a", "s", login_at=at(0))], BOTS) is None


def test_who_counts_as_what() -> None:
    events: list[Event] = [
        created(0),
        joined(1, "alice", "1"),
        joined(1, "unknown role", "2", role=None),
        joined(1, "bot-1", "3"),
        joined(1, "BOT-1", "4"),
        joined(1, "recorder", "5", role=ADMIN_ROLE),
        joined(1, "bot-recorder", "6", role=ADMIN_ROLE),
        joined(1, "agent7", "7"),
        joined(9, "gone", "8"),
        left(12, "gone", "8", 9),
    ]
    assert seen(events, ["bot-*", "agent[0-9]"]) == Present(
        room_session_id="1",
        people=frozenset({"alice", "unknown role", "BOT-1"}),
        bots=frozenset({"bot-1", "agent7"}),
        admins=frozenset({"recorder", "bot-recorder"}),
        closed=False,
        complete=True,
        as_of=at(12),
    )


def test_a_closed_room_is_empty_even_if_logouts_were_lost() -> None:
    result = seen([created(0), joined(1, "alice", "1"), closed(9)])
    assert (result.people, result.closed, result.complete, result.as_of) == (frozenset(), True, True, at(9))


def test_a_room_of_which_only_the_end_is_known_is_empty_and_newer_than_what_began_before() -> None:
    assert seen([closed(9)]).closed
    result = seen([closed(9, "2"), created(0, "1"), joined(1, "alice", "1")])
    assert (result.room_session_id, set(result.people)) == ("2", set())
    result = seen([closed(9, "2"), created(10, "1"), joined(11, "alice", "1")])
    assert (result.room_session_id, set(result.people)) == ("1", {"alice"})


def test_a_session_seen_from_its_middle_is_incomplete_until_its_end() -> None:
    result = seen([left(9, "alice", "s", 5)])
    assert (result.people, result.complete) == (frozenset(), False)
    assert seen([left(9, "alice", "s", 5), closed(10)]).complete


def test_a_logout_that_comes_first_waits_for_its_login_with_or_without_its_login_time() -> None:
    for login in (5, None):
        logout = left(9, "alice", "s", login)
        assert people(created(0), logout) == set()
        assert people(created(0), logout, joined(5, "alice", "s")) == set()
        assert people(created(0), logout, joined(5, "alice", "s"), joined(10, "alice", "t")) == {"alice"}


def test_a_logout_shows_a_newer_login_that_was_lost() -> None:
    stay = joined(5, "alice", "s")
    assert people(created(0), stay, left(20, "alice", "t", 10)) == set()
    assert people(created(0), stay, left(20, "alice", "t", 2)) == {"alice"}
    assert people(created(0), stay, left(20, "alice", "t", None)) == {"alice"}


def test_the_same_session_may_log_in_again_after_its_logout() -> None:
    events: list[Event] = [created(0), joined(5, "alice", "s"), left(9, "alice", "s", 5), joined(10, "alice", "s")]
    assert people(*events) == people(*reversed(events)) == {"alice"}
    assert people(*events, left(12, "alice", "s", 10)) == set()


def test_a_logout_of_the_very_same_moment_or_before_its_own_login_counts() -> None:
    for time in (5, 4):
        assert people(created(0), joined(5, "alice", "s"), left(time, "alice", "s", 5)) == set()
    assert people(created(0), joined(5, "alice", "s"), left(5, "alice", "s", None)) == set()


def test_on_a_tie_the_user_is_there() -> None:
    events: list[Event] = [created(0), joined(5, "alice", "s"), joined(5, "alice", "t"), left(9, "alice", "t", 5)]
    assert people(*events) == {"alice"}
    assert people(*events, left(9, "alice", "s", 5)) == set()


def test_between_two_roles_a_user_is_a_person() -> None:
    admin, person = joined(5, "alice", "s", role=ADMIN_ROLE), joined(5, "alice", "t", role=1)
    assert people(created(0), admin, person) == people(created(0), person, admin) == {"alice"}
    assert people(created(0), admin, replace(admin, role=1)) == {"alice"}
    assert people(created(0), admin, replace(admin, role=None)) == set()


def test_of_sessions_that_began_together_the_open_one_is_current_then_the_one_with_the_greater_number() -> None:
    rooms = [RoomFact(APP, ROOM, session, created_at=at(0)) for session in ("9", "10", "8")]
    assert current_session(rooms) == rooms[1]
    rooms[1] = replace(rooms[1], closed_at=at(1))
    assert current_session(rooms) == current_session(rooms[::-1]) == rooms[0]
