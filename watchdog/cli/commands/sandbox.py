"""``sandbox``."""

import asyncio
import gc
from typing import Final

import typer

from watchdog.sandbox.command import SandboxSettings, run_sandbox

_FULL_COLLECTION_EVERY: Final = 1000
"""A full garbage collection after this many of the second generation; Python's default is 10."""


def serve(settings: SandboxSettings) -> None:
    """Run the sandbox until SIGINT or SIGTERM. Raises ConfigError."""
    # The log keeps growing, so a full collection would delay replies, and delayed stops would look like a burst.
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], _FULL_COLLECTION_EVERY)
    asyncio.run(run_sandbox(settings, typer.echo))
