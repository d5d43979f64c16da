"""Many values as one parameter: the text of a statement is the same for one and for two hundred of them.

So neither the driver nor PostgreSQL parses, prepares and plans it again for each number, and SQLAlchemy converts one
parameter instead of one for each column of each row.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from watchdog.store.tables import as_utc_text


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


class _Rows(sa.types.TypeDecorator[Sequence[Mapping[str, Any]]]):
    """Rows as JSON text, with times as the database stores them."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Sequence[Mapping[str, Any]] | None, dialect: sa.Dialect) -> str:
        text_of = as_utc_text if dialect.name == "sqlite" else datetime.isoformat
        return json.dumps(value, ensure_ascii=False, default=text_of)


class _Given(FunctionElement[Any]):
    """Rows with some of the columns of a table, from the parameter ``rows``."""

    inherit_cache = True

    def __init__(self, table: sa.Table, names: Iterable[str]) -> None:
        rows = sa.bindparam("rows", type_=_Rows)
        super().__init__(rows, sa.literal_column(table.name), *map(sa.literal_column, names))


@compiles(_Given, "sqlite")
def _given_sqlite(element: _Given, compiler: Any, **kw: Any) -> str:
    rows, _, *names = (compiler.process(part, **kw) for part in element.clauses)
    columns = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in names)
    return f"(SELECT {columns} FROM json_each({rows}))"  # noqa: S608 - names of columns


@compiles(_Given, "postgresql")
def _given_postgresql(element: _Given, compiler: Any, **kw: Any) -> str:
    rows, table, *_ = (compiler.process(part, **kw) for part in element.clauses)
    return f"json_populate_recordset(NULL::{table}, CAST({rows} AS json))"


def given(table: sa.Table, names: Iterable[str]) -> Any:
    """Return rows of these columns of ``table``, made of the parameter ``rows``, whose items have these keys."""
    columns = [sa.column(name, table.c[name].type) for name in names]
    return _Given(table, names).table_valued(*columns, name="given")


def inserting(insert: Any, names: Sequence[str], **others: sa.ColumnElement[Any]) -> Any:
    """Return ``insert`` of these columns for the parameter ``rows``; ``others`` get the same in each row."""
    rows = given(insert.table, names)
    # SQLite needs a WHERE to tell ON CONFLICT from a condition of a join.
    chosen = sa.select(*(rows.c[name] for name in names), *others.values()).where(sa.true())
    return insert.from_select([*names, *others], chosen)
