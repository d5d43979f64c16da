"""Every program of docs/integrations.md does what the three statements do, on the databases of the page's table."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.integrations import django_site
from tests.integrations.programs import PAGE, Folder, printed
from tests.support.running import Application
from tests.support.tools import program


def sqlalchemy(folder: Folder) -> None:
    folder.python("tasks.py", folder="sqlalchemy")


def django(folder: Folder) -> None:
    django_site.write_settings(folder)
    django_site.run(folder, "import calls.tasks")


def go(folder: Folder) -> None:
    # As Debian's own packages are built: with Debian's libraries only.
    build = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "-tags=libsqlite3"}
    folder.run(program("go"), "build", "-o", "main", "main.go", **build, GOCACHE=f"{sys.prefix}/go")
    driver, source = ("sqlite3", "file:app.db?_busy_timeout=5000") if folder.is_sqlite else ("postgres", folder.url)
    folder.run("./main", DB_DRIVER=driver, DB_SOURCE=source)


def php(folder: Folder) -> None:
    url = sa.make_url(folder.url)
    source = "sqlite:app.db"
    if not folder.is_sqlite:
        source = f"pgsql:host={url.query['host']};dbname={url.database};user={url.username}"
    folder.run(program("php"), "pdo.php", DB_DSN=source)


def ruby(name: str) -> Callable[[Folder], object]:
    return lambda folder: folder.run(program("ruby"), name, DATABASE_URL=folder.url)


def node(name: str) -> Callable[[Folder], object]:
    return lambda folder: folder.node(name)


BOTH = frozenset({"sqlite", "postgresql"})
CLIENTS: dict[str, tuple[Callable[[Folder], object], frozenset[str]]] = {
    "sqlalchemy/tasks.py": (sqlalchemy, BOTH),
    "django/calls/tasks.py": (django, BOTH),
    "main.go": (go, BOTH),
    "pdo.php": (php, BOTH),
    "pg.rb": (ruby("pg.rb"), frozenset({"postgresql"})),
    "sqlite3.rb": (ruby("sqlite3.rb"), frozenset({"sqlite"})),
    "pg.js": (node("pg.js"), frozenset({"postgresql"})),
    "better-sqlite3.js": (node("better-sqlite3.js"), frozenset({"sqlite"})),
    "sequelize.js": (node("sequelize.js"), BOTH),
    "typeorm.js": (node("typeorm.js"), BOTH),
}


@pytest.mark.parametrize(
    ("backend", "name"),
    [(database, name) for name, (_, databases) in CLIENTS.items() for database in sorted(databases)],
    indirect=["backend"],
)
def test_a_printed_program(backend: Application, folder: Folder, name: str) -> None:
    CLIENTS[name][0](folder)
    (row,) = backend.rows("SELECT * FROM zego_tasks")
    assert (row["task_id"], row["room_id"], row["status"]) == ("1920370518175780864", "room-1", "released")
    assert (row["user_count"], row["user_count_source"]) == (0, "app")
    assert row["last_occupied_at"] is not None
    assert row["last_occupied_at"] <= row["empty_since"] <= row["ended_at"]


def test_the_table_says_what_is_tested() -> None:
    rows = re.findall(r"^\| .* \| (.) \| (.) \| \[(.*)\]\(#\S+\) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    marks = {
        name: frozenset(database for database, mark in (("sqlite", sqlite), ("postgresql", postgresql)) if mark == "✓")
        for sqlite, postgresql, name in rows
    }
    assert marks == {name: databases for name, (_, databases) in CLIENTS.items()}
    others = {"sqlalchemy/models.py", "sqlalchemy/migrations/env.py", "django/calls/models.py"}
    assert printed().keys() - CLIENTS.keys() == others


def test_the_lock_file_names_no_place_to_get_packages_from() -> None:
    lock = (Path(__file__).parent / "node/package-lock.json").read_text()
    assert "://" not in lock
    assert lock.count('"integrity"') > 50
