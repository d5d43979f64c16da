"""``migrate`` where something of ours is missing: what holds no rows is created again, and no row is ever dropped."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from watchdog import SCHEMA_VERSION
from watchdog.errors import DatabaseError, SchemaMismatch
from watchdog.store import contract, schema
from watchdog.store.engine import open_engine, reading, writing
from watchdog.store.tables import VERSION_TABLE, metadata

TASK = "INSERT INTO zego_tasks (task_id, room_id) VALUES ('task', 'room')"
CATALOGUE = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL",
    "postgresql": (
        "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"
        " UNION ALL SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
        " WHERE indexrelid::regclass::text LIKE 'zego_%%'"
        " UNION ALL SELECT oid::regclass::text, pg_get_viewdef(oid) FROM pg_class"
        " WHERE relname IN ('zego_stop_history', 'zego_savings')"
        " UNION ALL SELECT proname, pg_get_functiondef(oid) FROM pg_proc WHERE proname LIKE 'zego_%%'"
    ),
}


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = open_engine(database_url, must_exist=False)
    schema.migrate(engine)
    yield engine
    engine.dispose()


def execute(engine: sa.Engine, *statements: str) -> None:
    with writing(engine) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def catalogue(engine: sa.Engine) -> list[tuple[str, str]]:
    """The definitions; on SQLite in the order in which they were created."""
    with reading(engine) as connection:
        found = [(name, sql) for name, sql in connection.exec_driver_sql(CATALOGUE[engine.dialect.name]).all()]
    return found if engine.dialect.name == "sqlite" else sorted(found)


def drop_tables(engine: sa.Engine, *names: str) -> None:
    """As an application's migrations do; PostgreSQL wants the views to go first."""
    if engine.dialect.name == "postgresql":
        execute(engine, *(f"DROP VIEW IF EXISTS {name}" for name in contract.VIEWS))
    execute(engine, *(f"DROP TABLE {name}" for name in names))


def triggers(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, sql) for name, sql in found if sql.startswith("CREATE TRIGGER")]


def test_what_holds_no_rows_is_created_again(engine: sa.Engine) -> None:
    execute(engine, TASK)
    before = catalogue(engine)
    on = " ON zego_tasks" if engine.dialect.name == "postgresql" else ""
    execute(engine, f"DROP TRIGGER zego_tasks_hinted{on}", *(f"DROP VIEW {name}" for name in contract.VIEWS))
    with reading(engine) as connection:
        indexes = contract.differences(connection).slowing
    assert indexes == ()
    names = sorted(str(index.name) for table in metadata.tables.values() for index in table.indexes)
    execute(engine, *(f"DROP INDEX {name}" for name in names))
    if on:
        execute(engine, "DROP FUNCTION zego_tasks_hinted()", "ALTER TABLE zego_tasks DISABLE TRIGGER zego_tasks_ended")
    assert set(contract.compare(engine).slowing) == set(names)
    assert schema.migrate(engine) == (SCHEMA_VERSION, SCHEMA_VERSION)
    assert sorted(catalogue(engine)) == sorted(before)
    assert triggers(catalogue(engine)) == triggers(before)
    assert contract.compare(engine).blinding == ()
    with reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT task_id FROM zego_tasks").all() == [("task",)]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("lost", ["DROP TABLE zego_replaced", "ALTER TABLE zego_replaced DROP COLUMN status"])
def test_the_table_that_only_triggers_use(engine: sa.Engine, lost: str) -> None:
    execute(engine, TASK)
    before = catalogue(engine)
    execute(engine, "DROP TRIGGER zego_tasks_known", "DROP TRIGGER zego_tasks_inserted", lost)
    schema.migrate(engine)
    assert sorted(catalogue(engine)) == sorted(before)
    execute(engine, "INSERT OR REPLACE INTO zego_tasks (task_id, room_id) VALUES ('task', 'room')")


def test_where_nothing_is_missing_nothing_changes(engine: sa.Engine) -> None:
    before = catalogue(engine)
    schema.migrate(engine)
    assert catalogue(engine) == before


@pytest.mark.parametrize("left", ["nothing", "zego_tasks", "zego_schema_version", "all but the version"])
def test_without_rows_the_tables_are_built_anew(engine: sa.Engine, left: str) -> None:
    before = catalogue(engine)
    names = {VERSION_TABLE} if left == "all but the version" else {*metadata.tables, VERSION_TABLE} - {left}
    drop_tables(engine, *names)
    schema.migrate(engine)
    assert sorted(catalogue(engine)) == sorted(before)
    assert schema.version(engine) == SCHEMA_VERSION
    contract.require(engine)


def test_a_missing_column_of_a_table_without_rows(engine: sa.Engine) -> None:
    execute(engine, "ALTER TABLE zego_daemons DROP COLUMN requests")
    schema.migrate(engine)
    contract.require(engine)


@pytest.mark.parametrize(
    ("dropped", "missing"),
    [
        ([VERSION_TABLE], f"table {VERSION_TABLE}"),
        (["zego_rejoins", "zego_daemons"], "table zego_daemons, table zego_rejoins"),
    ],
)
def test_rows_are_never_dropped(engine: sa.Engine, dropped: list[str], missing: str) -> None:
    execute(engine, TASK)
    drop_tables(engine, *dropped)
    before = catalogue(engine)
    sentence = rf"zego_tasks hold rows, but there is no {missing}.*; restore a backup, or drop zego_tasks and run"
    with pytest.raises(SchemaMismatch, match=sentence):
        schema.migrate(engine)
    assert catalogue(engine) == before
    with reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT task_id FROM zego_tasks").all() == [("task",)]
    # The step that it names works.
    drop_tables(engine, "zego_tasks")
    schema.migrate(engine)
    contract.require(engine)


def test_what_the_application_refers_to_is_named(engine: sa.Engine) -> None:
    """Only PostgreSQL has that difficulty."""
    execute(engine, "CREATE TABLE calls (task_id text CONSTRAINT calls_task REFERENCES zego_tasks)")
    drop_tables(engine, "zego_rejoins")
    if engine.dialect.name == "postgresql":
        with pytest.raises(DatabaseError, match=r"constraint calls_task on table calls .*; drop that first"):
            schema.migrate(engine)
        execute(engine, "ALTER TABLE calls DROP CONSTRAINT calls_task")
    schema.migrate(engine)
    contract.require(engine)


def test_rows_that_a_policy_hides_are_not_dropped(postgresql_url: str) -> None:
    superuser = open_engine(postgresql_url.replace("postgresql://", "postgresql+psycopg://"))
    name = f"owner_{superuser.url.database}"
    execute(superuser, f"CREATE ROLE {name} LOGIN", f"GRANT ALL ON SCHEMA public TO {name}")
    owner = open_engine(superuser.url.set(username=name).render_as_string(hide_password=False))
    schema.migrate(owner)
    execute(owner, TASK, "DROP TABLE zego_rejoins CASCADE")
    execute(
        owner, "ALTER TABLE zego_tasks ENABLE ROW LEVEL SECURITY", "ALTER TABLE zego_tasks FORCE ROW LEVEL SECURITY"
    )
    with pytest.raises(DatabaseError, match="row-level security"):
        schema.migrate(owner)
    with reading(superuser) as connection:
        assert connection.exec_driver_sql("SELECT task_id FROM zego_tasks").all() == [("task",)]
    owner.dispose()
    execute(superuser, f"DROP OWNED BY {name}", f"DROP ROLE {name}")
    superuser.dispose()
