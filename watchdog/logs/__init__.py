"""Writes log events to stderr or the journal: one line each, without secrets, never blocking the daemon.

What is logged is decided where it happens, not here.
"""

from watchdog.logs.setup import close, configure, set_level

__all__ = ["close", "configure", "set_level"]
