"""The command line: ``app`` declares the commands, ``commands`` runs them, ``checks`` tests, ``view`` prints.

The entry point is ``main``. It imports the commands late, so a broken installation still gets a clear message.
"""

import errno
import os
import sys
from pathlib import Path
from typing import Final

import watchdog

_OUTPUT_ERRORS: Final = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Errors of the output: closed by its reader, or no space left. Any other OSError is a bug."""


def main() -> None:
    if not hasattr(watchdog, "__version__"):
        sys.stderr.write(
            f"zego-watchdog: another package named watchdog has overwritten this one in "
            f"{Path(watchdog.__file__ or '').parent}; install zego-watchdog into its own virtual environment\n"
        )
        sys.exit(78)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows a question mark, and the command continues.
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    if "_ZEGO_WATCHDOG_COMPLETE" in os.environ:
        # A shell asks for completions. Typer registers its completion classes only when add_completion is on.
        from typer._completion_classes import completion_init

        completion_init()
    if sys.stdout is None:
        sys.stderr.write("zego-watchdog: standard output is closed; redirect it to /dev/null to discard it\n")
        sys.exit(1)
    from watchdog.cli.app.root import app

    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS:
            raise
        if error.errno != errno.EPIPE:
            sys.stderr.write(f"zego-watchdog: cannot write the output: {error.strerror}\n")
        # Python flushes stdout again at exit, and would print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
