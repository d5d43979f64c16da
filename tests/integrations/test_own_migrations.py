"""The application's own migrations leave our tables alone as docs/integrations.md advises; and without that, not."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from tests.integrations import django_site
from tests.integrations.programs import PAGE, Folder
from tests.support.running import Application
from watchdog.store import contract, schema
from watchdog.store.engine import open_engine, writing

SCRIPT = '''
"""${message}"""
from alembic import op
import sqlalchemy as sa

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

def upgrade():
    ${upgrades}

def downgrade():
    ${downgrades}
'''
FILTER = ", include_object=include_object"


@contextmanager
def engine(folder: Folder) -> Iterator[sa.Engine]:
    opened = open_engine(folder.url.replace("postgresql://", "postgresql+psycopg://"))
    yield opened
    opened.dispose()


def lacking(folder: Folder) -> tuple[str, ...]:
    """What our contract misses."""
    with engine(folder) as opened:
        found = contract.compare(opened)
    return found.blinding + found.slowing


def has_table(folder: Folder, name: str) -> bool:
    with engine(folder) as opened:
        return sa.inspect(opened).has_table(name)


def alembic(folder: Folder, *arguments: str) -> str:
    command = "from alembic.config import main; import sys; main(sys.argv[1:])"
    return folder.python("-c", command, *arguments, folder="sqlalchemy")


def alembic_project(folder: Folder) -> None:
    folder.write("sqlalchemy/alembic.ini", "[alembic]\nscript_location = migrations\n")
    folder.write("sqlalchemy/migrations/script.py.mako", SCRIPT.lstrip())
    (folder.path / "sqlalchemy/migrations/versions").mkdir()


class TestAlembic:
    def test_with_the_printed_filter(self, backend: Application, folder: Folder) -> None:
        alembic_project(folder)
        alembic(folder, "revision", "--autogenerate", "-m", "calls")
        (script,) = (folder.path / "sqlalchemy/migrations/versions").glob("*.py")
        assert script.read_text().count("op.") == 2, "creates and drops one table"
        alembic(folder, "upgrade", "head")
        alembic(folder, "check")
        assert lacking(folder) == ()
        assert has_table(folder, "calls")
        backend.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('task', 'room')")
        backend.execute("INSERT INTO calls (id, task_id) VALUES (1, 'task')")

    def test_without_it(self, folder: Folder) -> None:
        env = (folder.path / "sqlalchemy/migrations/env.py").read_text()
        assert FILTER in env
        folder.write("sqlalchemy/migrations/env.py", env.replace(FILTER, ""))
        alembic_project(folder)
        alembic(folder, "revision", "--autogenerate", "-m", "calls")
        (script,) = (folder.path / "sqlalchemy/migrations/versions").glob("*.py")
        assert "op.drop_table('zego_stop_attempts')" in script.read_text()
        assert "op.drop_column('zego_tasks', 'claimed_by')" in script.read_text()

    def test_with_include_name_only(self, folder: Folder) -> None:
        """Hidden in the database, but among the models: it would be created once more."""
        env = (folder.path / "sqlalchemy/migrations/env.py").read_text()
        by_name = ", include_name=lambda name, type_, _: type_ != 'table' or not name.startswith('zego_')"
        folder.write("sqlalchemy/migrations/env.py", env.replace(FILTER, by_name))
        alembic_project(folder)
        alembic(folder, "revision", "--autogenerate", "-m", "calls")
        (script,) = (folder.path / "sqlalchemy/migrations/versions").glob("*.py")
        assert "op.create_table('zego_tasks'" in script.read_text()
        assert "drop_table('zego_stop_attempts')" not in script.read_text()

    def test_what_is_left_after_it(self, folder: Folder) -> None:
        """Models without ours, and no filter: the upgrade drops all our tables, or on PostgreSQL fails at the view."""
        env = (folder.path / "sqlalchemy/migrations/env.py").read_text()
        folder.write("sqlalchemy/migrations/env.py", env.replace(FILTER, ""))
        base = "from sqlalchemy.orm import DeclarativeBase\n\nclass Base(DeclarativeBase):\n    pass\n"
        folder.write("sqlalchemy/models.py", base)
        alembic_project(folder)
        alembic(folder, "revision", "--autogenerate", "-m", "none of ours")
        if not folder.is_sqlite:
            with pytest.raises(AssertionError, match="zego_stop_history"):
                alembic(folder, "upgrade", "head")
            assert lacking(folder) == ()
            return
        alembic(folder, "upgrade", "head")
        assert "table zego_tasks" in lacking(folder)
        with engine(folder) as opened:
            schema.migrate(opened)
        assert lacking(folder) == ()


class TestDjango:
    def test_unmanaged_models(self, backend: Application, folder: Folder) -> None:
        django_site.write_settings(folder)
        django_site.manage(folder, "makemigrations", "calls")
        django_site.manage(folder, "migrate")
        assert lacking(folder) == ()
        assert has_table(folder, "calls_call")
        backend.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('task', 'room')")
        backend.execute("INSERT INTO calls_call (id, task_id) VALUES (1, 'task')")
        backend.execute("DELETE FROM zego_tasks")
        django_site.manage(folder, "migrate", "calls", "zero")
        assert lacking(folder) == ()


class TestNode:
    """What synchronises tables with models does no harm to the printed programs; without their remedy, it does."""

    @pytest.mark.parametrize(
        ("name", "last", "synchronize", "remedy"),
        [
            ("sequelize.js", "sequelize.close()", "sequelize.sync({ alter: true })", "ZegoTask.sync ="),
            ("typeorm.js", "dataSource.destroy()", "dataSource.synchronize()", "  synchronize: false"),
        ],
        ids=["sequelize", "typeorm"],
    )
    def test_synchronize(self, folder: Folder, name: str, last: str, synchronize: str, remedy: str) -> None:
        lines = (folder.path / name).read_text().splitlines()
        lines.insert(lines.index(f"  await {last}"), f"  await {synchronize}")
        folder.write(name, "\n".join(lines))
        folder.node(name)
        assert lacking(folder) == ()
        unsafe = [line.replace("1920370518175780864", "another") for line in lines if not line.startswith(remedy)]
        assert len(unsafe) == len(lines) - 1
        folder.write(name, "\n".join(unsafe))
        if folder.is_sqlite:
            folder.node(name)
            assert {"column zego_tasks.claimed_by", "trigger zego_tasks_hinted"} <= {*lacking(folder)}
        else:
            # At the first column that a trigger needs.
            with pytest.raises(AssertionError, match="trigger zego_tasks_"):
                folder.node(name)


def test_the_printed_foreign_key_lets_the_daemon_remove_the_task(backend: Application, folder: Folder) -> None:
    (statement,) = re.findall(r"^```sql\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    backend.execute(statement)
    backend.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('task', 'room')")
    backend.execute("INSERT INTO calls VALUES (1, 'task')")
    with engine(folder) as opened, writing(opened) as connection:
        connection.exec_driver_sql("DELETE FROM zego_tasks")
    assert backend.rows("SELECT * FROM calls") == [{"id": 1, "task_id": None}]
