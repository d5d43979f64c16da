"""The daemon's work, one module a job; each has ``run_once`` or one plain entry.

Services use ``core``, ``store`` and ``zego``; timers, signals and HTTP are in ``daemon``.
"""
