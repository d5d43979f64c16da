"""A file that a command writes: complete or not at all."""

import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from watchdog.errors import WatchdogError

STDOUT: Final = Path("-")
"""The name of standard output on the command line."""


@contextmanager
def replaced(output: Path | None, option: str, *, force: bool) -> Iterator[BinaryIO]:
    """Open ``output``, or standard output without one; the file is in its place only after the block has succeeded.

    ``force`` overwrites a file, which keeps its mode. Raises WatchdogError, naming ``option``.
    """
    if output is None:
        yield sys.stdout.buffer
        return
    final = Path(os.path.realpath(output))
    if final.exists() and not final.is_file():
        raise WatchdogError(f"{option} {output}: this is not a regular file; write to stdout, and redirect it")
    if final.exists() and not force:
        raise WatchdogError(f"{option} {output}: this file exists; choose another name, or overwrite it with --force")
    # In the same directory, so it can replace the file in one step: a reader finds the old or the new file, complete.
    part = final.with_name(f".{final.name}.{secrets.token_hex(4)}.part")
    try:
        # It names rooms and tasks: a new file is for its owner.
        with open(part, "xb", opener=_privately) as file:
            if final.exists():
                _take_after(final, file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(final)
    except OSError as error:
        raise WatchdogError(f"{option} {output}: {error.strerror}; choose another place") from error
    finally:
        part.unlink(missing_ok=True)


def _privately(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _take_after(file: Path, descriptor: int) -> None:
    """Give the open file the owner, as far as this user may, and the mode of ``file``."""
    status = file.stat()
    with suppress(PermissionError):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
