"""Programs that some tests need and that a machine may lack: who lacks one skips its tests, but never in CI."""

import os
import shutil
from typing import Final

import pytest

PACKAGES: Final = {
    "cc": "gcc libc6-dev",
    "curl": "curl",
    "groff": "groff-base",
    "kill": "procps",
    "man": "man-db",
    "nginx": "nginx-light",
    "pgbouncer": "pgbouncer",
    "promtool": "prometheus",
    "psql": "postgresql-client",
    "redis-server": "redis-server",
    "sqlite3": "sqlite3",
    "systemctl": "systemd",
}
"""Each program, and what ``apt install`` calls it."""

_PATH: Final = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def find(name: str) -> str | None:
    """The path of a program, also where only root would look."""
    return shutil.which(name, path=_PATH)


def missing() -> list[str]:
    return [name for name in PACKAGES if find(name) is None]


def needs(name: str) -> pytest.MarkDecorator:
    """A mark for tests of a program of ``PACKAGES``."""
    return pytest.mark.skipif(find(name) is None, reason=f"{name} is not installed: apt install {PACKAGES[name]}")


def program(name: str) -> str:
    """The path of a program of ``PACKAGES``; skips the test without it."""
    found = find(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt install {PACKAGES[name]}")
    return found
