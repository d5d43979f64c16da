"""What ``check`` compares and ``run`` requires: a daemon must not be blind and look well."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from watchdog.errors import SchemaMismatch
from watchdog.store import contract, schema
from watchdog.store.engine import open_engine, reading, writing
from watchdog.store.tables import attempts, empty_spells, events, metadata

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    yield from migrated(database_url)


@pytest.fixture
def postgresql(postgresql_url: str) -> Iterator[sa.Engine]:
    yield from migrated(postgresql_url)


def migrated(url: str) -> Iterator[sa.Engine]:
    engine = open_engine(url, must_exist=False)
    schema.migrate(engine)
    yield engine
    engine.dispose()


def execute(engine: sa.Engine, *statements: str) -> None:
    with writing(engine) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_a_new_database_lacks_nothing(engine: sa.Engine) -> None:
    found = contract.compare(engine)
    assert found == contract.Differences(triggers=len(contract.expected_triggers(engine.dialect.name)))
    assert found.triggers > 3
    contract.require(engine)


def test_the_indexes_are_those_of_the_migrations(engine: sa.Engine) -> None:
    with reading(engine) as connection:
        found = sa.inspect(connection).get_multi_indexes(filter_names=list(metadata.tables))
    assert {name: {index["name"] for index in every} for (_, name), every in found.items() if every} == {
        name: {index.name for index in table.indexes} for name, table in metadata.tables.items() if table.indexes
    }


@pytest.mark.parametrize("name", ["zego_tasks_hinted", "zego_tasks_ended"])
def test_a_missing_trigger(engine: sa.Engine, name: str) -> None:
    on = " ON zego_tasks" if engine.dialect.name == "postgresql" else ""
    execute(engine, f"DROP TRIGGER {name}{on}")
    assert contract.compare(engine).blinding == (f"trigger {name}",)
    with pytest.raises(SchemaMismatch, match=f"missing or disabled: trigger {name}; run: zego-watchdog migrate"):
        contract.require(engine)


def test_what_an_applications_migrations_may_drop(engine: sa.Engine) -> None:
    execute(
        engine,
        "DROP INDEX zego_tasks_wake",
        "DROP VIEW zego_stop_history",
        "DROP VIEW zego_savings",
        "ALTER TABLE zego_daemons DROP COLUMN requests",
        "DROP TABLE zego_rejoins",
    )
    found = contract.compare(engine)
    assert found.blinding == (
        "column zego_daemons.requests",
        "table zego_rejoins",
        "view zego_stop_history",
        "view zego_savings",
        "trigger zego_rejoins_told",
    )
    assert found.slowing == ("zego_rejoins_asked", "zego_rejoins_room", "zego_rejoins_watched", "zego_tasks_wake")


def test_a_missing_index_slows_and_does_not_blind(engine: sa.Engine) -> None:
    execute(engine, "DROP INDEX zego_tasks_wake")
    assert contract.compare(engine).slowing == ("zego_tasks_wake",)
    contract.require(engine)


def definitions(engine: sa.Engine) -> set[str]:
    """The definition of each index, as the database has it."""
    sql = {
        "sqlite": "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
        "postgresql": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
    }
    with reading(engine) as connection:
        return set(connection.exec_driver_sql(sql[engine.dialect.name]).scalars())


def test_every_index_that_is_missing_is_named_and_the_page_brings_it_back(engine: sa.Engine) -> None:
    before = definitions(engine)
    dropped: set[str] = set()
    for name in sorted(str(index.name) for table in metadata.sorted_tables for index in table.indexes):
        execute(engine, f"DROP INDEX {name}")
        dropped.add(name)
        assert set(contract.compare(engine).slowing) == dropped
    section = (DOCS / "schema.md").read_text(encoding="utf-8").partition("\n## Indexes\n")[2]
    (block,) = re.findall(r"^```sql\n((?:.*\n)+?)```$", section, re.MULTILINE)
    execute(engine, *re.findall(r"^CREATE .*;$", block, re.MULTILINE))
    assert contract.compare(engine).slowing == ()
    assert definitions(engine) == before


def test_tables_in_another_schema_of_the_search_path_are_found(postgresql: sa.Engine) -> None:
    execute(postgresql, "CREATE SCHEMA first")
    query = {**postgresql.url.query, "options": "-c search_path=first,public"}
    other = open_engine(postgresql.url.set(query=query).render_as_string(hide_password=False))
    assert replace(contract.compare(other), triggers=0) == contract.Differences()
    other.dispose()


def test_policies_that_may_hide_rows(postgresql: sa.Engine) -> None:
    name = f"reader_{postgresql.url.database}"
    execute(
        postgresql,
        "ALTER TABLE zego_tasks ENABLE ROW LEVEL SECURITY",
        f"CREATE ROLE {name} LOGIN",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name}",
    )
    engine = open_engine(postgresql.url.set(username=name).render_as_string(hide_password=False))
    assert contract.compare(engine).hidden == ("zego_tasks",)
    with pytest.raises(SchemaMismatch, match=r"row-level security may hide rows of zego_tasks.*BYPASSRLS"):
        contract.require(engine)
    contract.require(postgresql)  # the owner sees all
    execute(postgresql, f"CREATE POLICY watchdog ON zego_tasks TO {name} USING (true)")
    contract.require(engine)
    execute(postgresql, "CREATE POLICY vip ON zego_tasks AS RESTRICTIVE USING (room_id <> 'vip')")
    assert contract.compare(engine).hidden == ("zego_tasks",)
    execute(postgresql, f"ALTER ROLE {name} BYPASSRLS")
    contract.require(engine)
    engine.dispose()
    execute(postgresql, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def test_a_sequence_that_is_behind_its_table(postgresql: sa.Engine) -> None:
    assert contract.compare(postgresql).behind == ()
    with writing(postgresql) as connection:
        row = {"task_id": "task", "room_id": "room", "kind": "asr", "reason": "empty_room", "evidence_source": "app"}
        row |= {"outcome": "stopped", "instance": "x"}
        connection.execute(sa.insert(attempts), row)
        event = {"type": "task.stopped", "task_id": "task", "room_id": "room", "kind": "asr"}
        connection.execute(sa.insert(events), event | {"occurred_at": datetime(2026, 3, 1, tzinfo=UTC), "data": {}})
        spell = {"task_id": "task", "room_id": "room", "kind": "asr", "ending": "released"}
        times = dict.fromkeys(("started_at", "empty_since", "ended_at"), datetime(2026, 3, 1, tzinfo=UTC))
        connection.execute(sa.insert(empty_spells), spell | times)
        for name in ("zego_stop_attempts", "zego_events", "zego_empty_spells"):
            connection.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), 1, false)")
    found = contract.compare(postgresql).behind
    assert found == ("zego_stop_attempts", "zego_events", "zego_empty_spells")
    with pytest.raises(SchemaMismatch, match="no attempt or end of a task can be recorded; SELECT setval"):
        contract.require(postgresql)
    execute(postgresql, contract.set_sequences(found))
    assert not contract.compare(postgresql).behind


def test_a_role_that_may_not_read_the_sequence_is_not_told_that_it_is_behind(postgresql: sa.Engine) -> None:
    """The rights of docs/roles.sql: an identity column needs none on its sequence."""
    name = f"daemon_{postgresql.url.database}"
    row = {"task_id": "task", "room_id": "room", "kind": "asr", "reason": "empty_room", "outcome": "stopped"}
    with writing(postgresql) as connection:
        connection.execute(sa.insert(attempts), row | {"instance": "x"})
    execute(postgresql, f"CREATE ROLE {name} LOGIN", f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}")
    engine = open_engine(postgresql.url.set(username=name).render_as_string(hide_password=False))
    assert not contract.compare(engine).behind
    contract.require(engine)
    engine.dispose()
    execute(postgresql, f"DROP OWNED BY {name}", f"DROP ROLE {name}")
