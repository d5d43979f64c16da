"""The process: lifecycle, jobs, signals, reload, HTTP server, metrics, systemd.

Work that could run without a process around it belongs in ``services``.
"""

from watchdog.daemon.lifecycle import run

__all__ = ["run"]
