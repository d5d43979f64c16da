"""A fake ZEGO good enough to bet on: see docs/sandbox.md.

``world`` and ``vendor`` are what the vendor does, ``callbacks`` and ``outbox`` what it tells by itself,
``misbehaviour`` what goes wrong; ``application``, ``sender`` and ``server`` put all of it on the network. ``script``
moves people about, ``referee`` compares what happened with what was recorded.
"""

from watchdog.sandbox.callbacks import CallbackEncoding
from watchdog.sandbox.misbehaviour import Body, CallbackBehaviour, Drop, Misbehaviour, RequestIdStyle
from watchdog.sandbox.operations import Behave, Crash, Join, Leave, Operation, SendCallbacks, Speak, Start, Stop
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
    "Join",
    "Leave",
    "Limits",
    "Misbehaviour",
    "Operation",
    "RequestIdStyle",
    "Sandbox",
    "SendCallbacks",
    "Speak",
    "Start",
    "Stop",
]
