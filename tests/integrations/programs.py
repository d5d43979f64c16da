"""The programs of docs/integrations.md: put on disk as printed, and run."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support.npm import installed, node, npm
from tests.support.tools import program

PAGE: Final = Path(__file__).parents[2] / "docs/integrations.md"


def printed() -> dict[str, str]:
    """Each program of the page by the file name in its fence."""
    return dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))


class Folder:
    """An application's directory: the page's programs, and its database.

    The SQLite file is ``app.db`` in it, as the page says.
    """

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self.url = url
        self.is_sqlite = url.startswith("sqlite:")
        for name, text in printed().items():
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)

    def run(self, *command: str, folder: str = ".", **environment: str) -> str:
        """Run a command in ``folder`` to its end and return what it printed; the test fails if the command does."""
        done = subprocess.run(
            command,
            cwd=self.path / folder,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def python(self, *arguments: str, folder: str, **environment: str) -> str:
        return self.run(sys.executable, *arguments, folder=folder, **self._sqlalchemy(), **environment)

    def node(self, name: str) -> str:
        settings = {"NODE_PATH": str(node_modules() / "node_modules")}
        if self.is_sqlite:
            settings |= {"DATABASE_FILE": "app.db", "DATABASE_URL": "sqlite:app.db"}
        else:
            settings |= {"DATABASE_URL": self.url}
        return self.run(node_program(), name, **settings)

    def _sqlalchemy(self) -> dict[str, str]:
        return {"DATABASE_URL": self.url.replace("postgresql://", "postgresql+psycopg://")}


def node_program() -> str:
    return str(node() / "bin/node")


def node_modules() -> Path:
    """The folder with package-lock.json's packages; the first use installs them and compiles two, in half a minute."""
    compiler = program("g++")

    def compiled(folder: Path) -> None:
        # Without optimisation it takes a third of the time.
        quick = {"CFLAGS": "-O0", "CXXFLAGS": "-O0", "CXX": compiler, "npm_config_build_from_source": "true"}
        npm(folder, "rebuild", "better-sqlite3", "sqlite3", f"--nodedir={node()}", **quick)

    return installed(Path(__file__).parent / "node", compiled)
