"""An ORM loads a task and saves it after the daemon has changed or ended it: no error, and the daemon's values stay."""

import textwrap

import pytest

from tests.integrations import django_site
from tests.integrations.programs import Folder
from tests.support.running import Application

STOPS = "UPDATE zego_tasks SET status = 'stopped' WHERE task_id = 'b'"
CLAIMS = (
    "UPDATE zego_tasks SET claimed_by = 'token', attempts = 3,"
    " due_at = '2026-03-01 12:00:00', wake_at = '2026-03-01 12:00:00' WHERE task_id = 'a'"
)
CLAIMED = "SELECT claimed_by, attempts, due_at IS NOT NULL AS due, wake_at IS NOT NULL AS wakes FROM zego_tasks"


@pytest.fixture
def backend(backend: Application) -> Application:
    for task in "abc":
        backend.execute("INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES (?, 'room', 0)", task)
    return backend


def claimed(backend: Application) -> None:
    (row,) = backend.rows(f"{CLAIMED} WHERE task_id = 'a'")
    assert (row["claimed_by"], row["attempts"], bool(row["due"]), bool(row["wakes"])) == ("token", 3, True, True)


def sqlalchemy(folder: Folder, code: str) -> None:
    prelude = """
        import os
        from sqlalchemy import MetaData, Table, create_engine, select, text, update
        from sqlalchemy.orm import Session
        from models import ZegoTask
        session = Session(create_engine(os.environ["DATABASE_URL"]))
        def meanwhile(statement):
            with Session(session.get_bind()) as daemon:
                daemon.execute(text(statement))
                daemon.commit()
    """
    folder.python("-c", "\n".join(map(textwrap.dedent, [prelude, code])), folder="sqlalchemy")


class TestSqlalchemy:
    def test_three_in_one_flush_of_which_one_has_ended(self, backend: Application, folder: Folder) -> None:
        sqlalchemy(
            folder,
            f"""
            tasks = session.scalars(select(ZegoTask)).all()
            session.expire_on_commit = False
            session.commit()
            meanwhile("{STOPS}")
            for task in tasks:
                task.status = "released"
            session.commit()
            """,
        )
        assert backend.statuses() == {"a": "released", "b": "stopped", "c": "released"}

    def test_all_columns_of_a_claimed_task(self, backend: Application, folder: Folder) -> None:
        sqlalchemy(
            folder,
            f"""
            whole = Table("zego_tasks", MetaData(), autoload_with=session.get_bind())
            values = dict(session.execute(select(whole).filter_by(task_id="a")).mappings().one())
            session.commit()
            meanwhile("{CLAIMS}")
            session.execute(update(whole).where(whole.c.task_id == "a").values(values))
            session.commit()
            """,
        )
        claimed(backend)


FULL = """
from django.db import models
class WholeTask(models.Model):
    task_id = models.TextField(primary_key=True)
    room_id = models.TextField()
    user_count = models.IntegerField(null=True)
    due_at = models.DateTimeField(null=True)
    wake_at = models.DateTimeField(null=True)
    claimed_by = models.TextField(null=True)
    attempts = models.IntegerField(default=0)
    status = models.TextField(default="active")
    class Meta:
        app_label = "calls"
        managed = False
        db_table = "zego_tasks"
"""


def django(folder: Folder, code: str) -> None:
    django_site.write_settings(folder)
    prelude = """
        from calls.models import ZegoTask
        from django.db import connection
        def meanwhile(statement):
            with connection.cursor() as cursor:
                cursor.execute(statement)
    """
    django_site.run(folder, "\n".join(map(textwrap.dedent, [FULL, prelude, code])))


class TestDjango:
    def test_an_ended_task(self, backend: Application, folder: Folder) -> None:
        django(
            folder,
            f"""
            kinds = [{{}}, {{"update_fields": ["status"]}}, {{"force_update": True}}]
            tasks = [(model.objects.get(pk="b"), kind) for model in (ZegoTask, WholeTask) for kind in kinds]
            meanwhile("{STOPS}")
            for task, kind in tasks:
                task.status = "released"
                task.save(**kind)
            """,
        )
        assert backend.statuses() == {"a": "active", "b": "stopped", "c": "active"}

    def test_all_columns_of_a_claimed_task(self, backend: Application, folder: Folder) -> None:
        django(
            folder,
            f"""
            task = WholeTask.objects.get(pk="a")
            meanwhile("{CLAIMS}")
            task.save()
            """,
        )
        claimed(backend)

    def test_bulk_update_and_update_or_create(self, backend: Application, folder: Folder) -> None:
        django(
            folder,
            f"""
            tasks = list(ZegoTask.objects.all())
            meanwhile("{STOPS}")
            for task in tasks:
                task.status = "released"
            assert ZegoTask.objects.bulk_update(tasks, ["status"]) == 3
            ZegoTask.objects.update_or_create(pk="b", defaults={{"room_id": "room", "status": "active"}})
            """,
        )
        assert backend.statuses() == {"a": "released", "b": "stopped", "c": "released"}


def node(folder: Folder, name: str, uses: str, code: str) -> None:
    """Run ``code`` instead of the printed program's three statements, with its connection and models."""
    head = (folder.path / name).read_text().partition("async function main() {\n")[0]
    folder.write(name, f"{head}async function main() {{\n{textwrap.dedent(uses)}{textwrap.dedent(code)}}}\nmain()\n")
    folder.node(name)


class TestTypeorm:
    USES = """
        await dataSource.initialize()
        const tasks = dataSource.getRepository(ZegoTask)
    """

    def test_save(self, backend: Application, folder: Folder) -> None:
        node(
            folder,
            "typeorm.js",
            self.USES,
            f"""
            const all = await tasks.find()
            await dataSource.query("{STOPS}")
            await dataSource.query("{CLAIMS}")
            for (const task of all) task.status = task.taskId === 'a' ? 'active' : 'released'
            await tasks.save(all)
            await tasks.upsert({{ taskId: 'a', roomId: 'room', userCount: 0 }}, ['taskId'])
            await dataSource.destroy()
            """,
        )
        assert backend.statuses() == {"a": "active", "b": "stopped", "c": "released"}
        claimed(backend)


class TestSequelize:
    def test_save(self, backend: Application, folder: Folder) -> None:
        node(
            folder,
            "sequelize.js",
            "",
            f"""
            const all = await ZegoTask.findAll()
            await sequelize.query("{STOPS}")
            await sequelize.query("{CLAIMS}")
            for (const task of all) {{
              task.status = task.taskId === 'a' ? 'active' : 'released'
              await task.save({{ fields: ['roomId', 'userCount', 'status'] }})
            }}
            await ZegoTask.upsert({{ taskId: 'a', roomId: 'room', userCount: 0, status: 'active' }})
            await sequelize.close()
            """,
        )
        assert backend.statuses() == {"a": "active", "b": "stopped", "c": "released"}
        claimed(backend)
