"""Log lines: one event a line, redacted, bounded, to stderr or the journal.

What is logged is said where it happens; this package only writes it.
"""

from watchdog.logs.setup import close, configure, set_level

__all__ = ["close", "configure", "set_level"]
