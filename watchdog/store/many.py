"""Many values as one parameter: the text of a statement is the same for one and for two hundred of them.

So neither the driver nor PostgreSQL parses, prepares and plans it again for each number. For rows this is done on
PostgreSQL only: SQLite's driver repeats a statement for each row in C.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class _List(sa.types.TypeDecorator[Sequence[Any]]):
    """A list of texts or integers: an array on PostgreSQL, JSON text on SQLite."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, item: type[sa.Text | sa.BigInteger]) -> None:
        super().__init__()
        self.item = item

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sa.Text())
        return dialect.type_descriptor(postgresql.ARRAY(self.item))

    def process_bind_param(self, value: Sequence[Any] | None, dialect: sa.Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return json.dumps(value, ensure_ascii=False)


class one_of(FunctionElement[Any]):  # noqa: N801 - reads as the SQL operator it is
    """Whether ``value`` is in the list that is the parameter ``name``."""

    # Not Boolean: on SQLite that adds "= 1", and then no index is used.
    type = sa.types.NullType()
    inherit_cache = True

    def __init__(self, value: sa.ColumnElement[str] | sa.ColumnElement[int], name: str) -> None:
        item = sa.BigInteger if isinstance(value.type, sa.Integer) else sa.Text
        super().__init__(value, sa.bindparam(name, type_=_List(item)))


@compiles(one_of, "sqlite")
def _one_of_sqlite(element: one_of, compiler: Any, **kw: Any) -> str:
    value, listed = (compiler.process(part, **kw) for part in element.clauses)
    return f"({value} IN (SELECT value FROM json_each({listed})))"  # noqa: S608 - both are compiled expressions


@compiles(one_of, "postgresql")
def _one_of_postgresql(element: one_of, compiler: Any, **kw: Any) -> str:
    value, listed = (compiler.process(part, **kw) for part in element.clauses)
    return f"({value} = ANY ({listed}))"


class _Given(FunctionElement[Any]):
    """Rows of a table of the database, from the parameter ``rows``."""

    inherit_cache = True

    def __init__(self, table: sa.Table) -> None:
        super().__init__(sa.literal_column(f"NULL::{table.name}"), sa.bindparam("rows", type_=sa.Text))


@compiles(_Given, "postgresql")
def _given_postgresql(element: _Given, compiler: Any, **kw: Any) -> str:
    kind, rows = (compiler.process(part, **kw) for part in element.clauses)
    return f"json_populate_recordset({kind}, CAST({rows} AS json))"


def given(table: sa.Table) -> Any:
    """Return rows like those of ``table``, made of the parameter of ``as_parameters``; only for PostgreSQL."""
    return _Given(table).table_valued(*(sa.column(column.name, column.type) for column in table.c), name="given")


def inserting(dialect: str, insert: Any, names: Sequence[str], **others: sa.ColumnElement[Any]) -> Any:
    """Return ``insert`` of these columns, for the rows of ``as_parameters``; ``others`` get the same in each row."""
    if dialect == "sqlite":
        return insert.values(others)
    rows = given(insert.table)
    return insert.from_select([*names, *others], sa.select(*(rows.c[name] for name in names), *others.values()))


def as_parameters(
    dialect: str, rows: Iterable[Mapping[str, Any]], **others: Sequence[Any]
) -> list[dict[str, Any]] | dict[str, Any]:
    """Return what a statement is executed with for these rows; each names its columns.

    ``others`` are further parameters of PostgreSQL's statement.
    """
    if dialect == "sqlite":
        return [dict(row) for row in rows]
    return others | {"rows": json.dumps([dict(row) for row in rows], ensure_ascii=False, default=_text)}


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a value of {type(value).__name__} in a row")
