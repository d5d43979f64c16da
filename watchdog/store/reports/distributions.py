"""Distances between times, and how often each occurred: computed by the database, alike on both.

A distribution has at most some thousands of rows, however many values it counts.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

Distribution = Mapping[int, int]
"""Milliseconds, of which three digits are kept, to how often they occurred."""

BELOW_ZERO: Final = -1
"""The one value, in a distribution, of everything below 0."""

_HIGHEST: Final = 10_000_000
"""Milliseconds; a distribution has everything above here."""


class milliseconds_between(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """Whole milliseconds from the first time to the second; the same on both databases, to the millisecond."""

    type = sa.BigInteger()
    inherit_cache = True


@compiles(milliseconds_between, "sqlite")
def _between_sqlite(element: milliseconds_between, compiler: Any, **kw: Any) -> str:
    earlier, later = (compiler.process(each, **kw) for each in element.clauses)
    # julianday would be a float; times are texts of a fixed width, so the milliseconds can be cut out.
    return (
        # Without its fraction, which strftime would round.
        f"((strftime('%s', substr({later}, 1, 19)) - strftime('%s', substr({earlier}, 1, 19))) * 1000"
        f" + CAST(substr({later}, 21, 3) AS INTEGER) - CAST(substr({earlier}, 21, 3) AS INTEGER))"
    )


@compiles(milliseconds_between, "postgresql")
def _between_postgresql(element: milliseconds_between, compiler: Any, **kw: Any) -> str:
    earlier, later = (f"date_trunc('milliseconds', {compiler.process(each, **kw)})" for each in element.clauses)
    return f"CAST(round(extract(epoch FROM {later} - {earlier}) * 1000) AS bigint)"


class start_of(FunctionElement[str]):  # noqa: N801 - reads as the SQL function it is
    """The hour or the day of a time in UTC, as text: the first 13 or 10 characters of ``YYYY-MM-DD HH``."""

    type = sa.Text()
    inherit_cache = True

    def __init__(self, moment: sa.ColumnElement[Any], length: int) -> None:
        super().__init__(moment, sa.literal(length, sa.Integer()))


@compiles(start_of, "sqlite")
def _start_sqlite(element: start_of, compiler: Any, **kw: Any) -> str:
    moment, length = (compiler.process(each, **kw) for each in element.clauses)
    return f"substr({moment}, 1, {length})"


@compiles(start_of, "postgresql")
def _start_postgresql(element: start_of, compiler: Any, **kw: Any) -> str:
    moment, length = (compiler.process(each, **kw) for each in element.clauses)
    return f"substr(to_char({moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24'), 1, {length})"


def distribution(
    connection: sa.Connection,
    milliseconds: sa.ColumnElement[int],
    table: sa.Table,
    chosen: sa.ColumnElement[bool],
    *,
    signed: bool = False,
) -> Counter[int]:
    """Count values to three digits, so that a million of them are some thousands of rows. Null is not counted.

    ``signed``: to a tenth of a second instead, also below 0.
    """
    # Grouped twice: SQLite would merge a plain subquery and compute the distance once for every use of it.
    exact = (
        sa.select(milliseconds.label("value"), sa.func.count().label("number"))
        .select_from(table)
        .where(chosen)
        .group_by(sa.text("1"))
        .subquery()
    )
    rounded = (_tenths(exact.c.value) if signed else _three_digits(exact.c.value)).label("rounded")
    rows = sa.select(rounded, sa.func.sum(exact.c.number)).where(exact.c.value.is_not(None)).group_by(rounded)
    return Counter({value: int(number) for value, number in connection.execute(rows)})


def _three_digits(value: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    steps = [(limit, step) for limit, step in ((1000, 1), (10_000, 10), (100_000, 100), (1_000_000, 1000))]
    return sa.case(
        (value < 0, BELOW_ZERO),
        *((value < limit, value - value % step) for limit, step in steps),
        (value < _HIGHEST, value - value % 10_000),
        else_=_HIGHEST,
    )


def _tenths(value: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return sa.case((value < -_HIGHEST, -_HIGHEST), (value > _HIGHEST, _HIGHEST), else_=value - value % 100)
