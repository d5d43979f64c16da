"""What the triggers that write empty spells cost a hint: two databases alike, one without these triggers, in turns."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from statistics import median
from time import perf_counter
from typing import Final

from benchmarks.databases import ONE_ROOM_IN, PEOPLE, Database, room_id
from watchdog.store import contract

_WARM_UP: Final = 3
_COMMITTED_PART: Final = 9
"""One of so many hints is made where each is committed: a commit takes longer than a hint."""


class Subject:
    """One of the two databases; every method returns the seconds that one hint took, of so many."""

    def __init__(self, database: Database, hints: int) -> None:
        self._application = database.application
        # Those of ONE_ROOM_IN are empty, with a plan.
        occupied = (room_id(number) for number in range(database.size) if number % ONE_ROOM_IN)
        self._rooms = list(islice(occupied, hints))
        self._few_rooms = self._rooms[: committed(hints)]
        self._hint = (
            f"UPDATE zego_tasks SET user_count = {database.mark}"  # noqa: S608  # a mark
            f" WHERE room_id = {database.mark} AND status = 'active'"
        )

    def nothing_new(self) -> float:
        """Hints that end no spell, in one transaction."""
        return self._timed(self._rooms, [PEOPLE], together=True)

    def mostly_nothing_new(self) -> float:
        """People leave all rooms and come back, and three more hints of each room say the same. Five transactions."""
        return self._timed(self._rooms, [0, PEOPLE, PEOPLE, PEOPLE, PEOPLE], together=True)

    def in_bulk(self) -> float:
        """People leave all rooms, and come back: every second hint ends a spell. Two transactions."""
        return self._timed(self._rooms, [0, PEOPLE], together=True)

    def alone(self) -> float:
        """The same in fewer rooms, each hint committed."""
        return self._timed(self._few_rooms, [0, PEOPLE], together=False)

    def _timed(self, rooms: Sequence[str], counts: Sequence[int], *, together: bool) -> float:
        began = perf_counter()
        for people in counts:
            if together:
                self._application.execute("BEGIN")
            for room in rooms:
                self._application.execute(self._hint, (people, room))
            if together:
                self._application.execute("COMMIT")
        return (perf_counter() - began) / (len(counts) * len(rooms))


MEASURES: Final[Mapping[str, Callable[[Subject], float]]] = {
    "hints that end no spell, in bulk": Subject.nothing_new,
    "one in five ends a spell, in bulk": Subject.mostly_nothing_new,
    "every second one ends a spell, in bulk": Subject.in_bulk,
    "every second one ends a spell, each committed": Subject.alone,
}


def committed(hints: int) -> int:
    """Return in how many rooms each hint is committed."""
    return max(1, hints // _COMMITTED_PART)


def drop_triggers(database: Database) -> None:
    """Leave a database in which no spell is written."""
    dialect = database.engine.dialect.name
    on = " ON zego_tasks" if dialect == "postgresql" else ""
    for name in contract.expected_triggers(dialect):
        if "spell" in name:
            database.application.execute(f"DROP TRIGGER {name}{on}")


def measure(bare: Database, full: Database, hints: int, repeats: int) -> dict[str, tuple[list[float], list[float]]]:
    """Return the seconds per hint of every repeat, by measure: without the triggers, and with them."""
    drop_triggers(bare)
    subjects = Subject(bare, hints), Subject(full, hints)
    found: dict[str, tuple[list[float], list[float]]] = {}
    for name, run in MEASURES.items():
        samples: tuple[list[float], list[float]] = ([], [])
        for turn in range(-_WARM_UP, repeats):
            # A B, B A, A B …: a slow phase of the machine hits both of them.
            for index in (0, 1) if turn % 2 == 0 else (1, 0):
                took = run(subjects[index])
                if turn >= 0:
                    samples[index].append(took)
        found[name] = samples
    written = [_spells(database) for database in (bare, full)]
    expected = (2 * hints + committed(hints)) * (repeats + _WARM_UP)
    # A room that empties twice within a millisecond has one spell.
    if written[0] or not 0.95 * expected < written[1] <= expected:
        raise AssertionError(f"0 and {expected:,} spells were to be written: {written}")
    return found


def rows(found: Mapping[str, tuple[list[float], list[float]]]) -> list[list[str]]:
    """A row for each measure: hints a second without the triggers, with them, and how many fewer, by pairs of turns."""
    return [
        [
            name,
            *(f"{1 / median(samples):,.0f}" for samples in (without, having)),
            f"{median(1 - one / other for one, other in zip(without, having, strict=True)):.1%}",
        ]
        for name, (without, having) in found.items()
    ]


def _spells(database: Database) -> int:
    (number,) = database.application.execute("SELECT count(*) FROM zego_empty_spells").fetchone()
    return int(number)
