"""A fake ZEGO good enough to bet on: see docs/sandbox.md.

``world`` and ``vendor`` are what the vendor does, ``misbehaviour`` what goes wrong, ``application`` and ``server`` put
both on a port; ``script`` moves people about, ``referee`` compares what happened with what was recorded.
"""

from watchdog.sandbox.misbehaviour import Body, Drop, Misbehaviour, RequestIdStyle
from watchdog.sandbox.operations import Behave, Join, Leave, Operation, Start, Stop
from watchdog.sandbox.server import Sandbox
from watchdog.sandbox.vendor import Action, Code, Limits

__all__ = [
    "Action",
    "Behave",
    "Body",
    "Code",
    "Drop",
    "Join",
    "Leave",
    "Limits",
    "Misbehaviour",
    "Operation",
    "RequestIdStyle",
    "Sandbox",
    "Start",
    "Stop",
]
