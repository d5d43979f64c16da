"""A fake ZEGO for tests and demos: see docs/sandbox.md.

``world`` and ``vendor`` implement the vendor, ``kinds`` and ``actions`` have its tables, ``callbacks`` and ``outbox``
are its callbacks, ``misbehaviour`` its faults; ``application``, ``control``, ``sender`` and ``server`` are the network.
``referee`` compares the log with the ledger.
"""

from watchdog.sandbox.callbacks import CallbackEncoding
from watchdog.sandbox.kinds import Kind
from watchdog.sandbox.misbehaviour import Body, CallbackBehaviour, Drop, Misbehaviour, RequestIdStyle
from watchdog.sandbox.operations import (
    Behave,
    Crash,
    EndMedia,
    Join,
    Leave,
    Operation,
    SendCallbacks,
    Speak,
    Start,
    Stop,
)
from watchdog.sandbox.server import Sandbox
from watchdog.sandbox.vendor import Action, Code, Limits

__all__ = [
    "Action",
    "Behave",
    "Body",
    "CallbackBehaviour",
    "CallbackEncoding",
    "Code",
    "Crash",
    "Drop",
    "EndMedia",
    "Join",
]
__all__ += ["Kind", "Leave", "Limits", "Misbehaviour", "Operation", "RequestIdStyle", "Sandbox"]
__all__ += ["SendCallbacks", "Speak", "Start", "Stop"]
