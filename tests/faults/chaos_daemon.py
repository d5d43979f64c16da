"""The daemon with failpoints, and the nursery that makes daemons quickly. The released code knows nothing of either.

A *failpoint* has something happen to the process when it comes to an exact place. They are installed from outside, by
wrapping the seams of the product, and chosen by ``$FAULTS``: ``place=action``, ``place=action@3`` for the third time,
several separated by commas.

    place               the process has
    intend.commit       written the attempt, and its COMMIT is about to be sent
    intend.committed    committed the attempt, and sent nothing
    stop.send           seen that the lease suffices, and is about to make the request
    stop.left           given the last byte of a stop request to the kernel
    stop.answered       read the vendor's answer, and written nothing
    record.commit       written the answer, and its COMMIT is about to be sent
    record.committed    committed the answer
    claim.commit        claimed rows, and their COMMIT is about to be sent
    claim.committed     committed claims, and done nothing with them
    receive.commit      written a group of callbacks, and their COMMIT is about to be sent
    receive.committed   committed a group of callbacks, and answered none
    notify.claimed      committed the claim of events, and sent none
    notify.answered     read the receiver's answer, and written nothing
    notify.commit       written that events are delivered, and its COMMIT is about to be sent
    notify.committed    committed that events are delivered
    sweep               begun a sweep

    action      what happens
    kill        kill -9
    freeze      SIGSTOP: the whole process, until somebody sends SIGCONT
    block       the event loop hangs; in a thread of the store only that thread does

``SIGUSR1`` blocks the event loop wherever it is.

The *nursery* is a process that has imported everything once and forks a daemon whenever it is told to: a start costs a
tenth of a second instead of one or more, so that hundreds of kills are affordable. It reads orders from stdin, tells
starts and ends on stdout (one JSON object a line), and takes every daemon with it when its stdin ends.

    python -m tests.faults.chaos_daemon
"""

import contextvars
import json
import os
import selectors
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import sqlalchemy as sa

from tests.faults import terminator
from watchdog import cli
from watchdog.services.sweeper import Sweeper
from watchdog.store.attempts import Ledger
from watchdog.store.callbacks import CallbackStore
from watchdog.store.events import EventStore
from watchdog.store.tasks import Tasks
from watchdog.webhook.client import WebhookClient
from watchdog.zego import client as zego
from watchdog.zego.client import ZegoClient

_stopping: contextvars.ContextVar[bool] = contextvars.ContextVar("stopping", default=False)
_in_store = threading.local()
_passed: Counter[str] = Counter()


def block(*_: object) -> None:
    """Block the thread for ever."""
    while True:
        time.sleep(3600)  # noqa: TID251 - not a clock: what hangs here is the fault


_ACTIONS: dict[str, Callable[[], object]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    # To this very thread: it would go on for a while if another one took the signal.
    "freeze": lambda: signal.pthread_kill(threading.get_ident(), signal.SIGSTOP),
    "block": block,
}


def install(failpoints: str) -> None:
    """Put the failpoints of ``$FAULTS`` in place."""
    chosen: dict[tuple[str, int], str] = {}
    for failpoint in filter(None, failpoints.split(",")):
        place, _, action = failpoint.partition("=")
        action, _, number = action.partition("@")
        chosen[place, int(number or 1)] = action
        if action not in _ACTIONS:
            raise SystemExit(f"{failpoint}: no such action; there are {', '.join(_ACTIONS)}")
    signal.signal(signal.SIGUSR1, block)
    if not chosen:
        return

    def reach(place: str) -> None:
        _passed[place] += 1
        action = chosen.get((place, _passed[place]))
        if action is not None:
            _ACTIONS[action]()

    for owner, name in ((Tasks, "claim"), (Ledger, "intend"), (Ledger, "record"), (CallbackStore, "receive")):
        _wrap(owner, name, partial(_store_call, name, reach))
    _wrap(EventStore, "claim", lambda original: _claim_events(original, reach))
    _wrap(EventStore, "conclude", partial(_store_call, "notify", reach))
    _wrap(WebhookClient, "post", lambda original: _post(original, reach))
    sa.event.listen(sa.Engine, "commit", lambda _: _at_commit(reach))
    _wrap(ZegoClient, "stop_task", lambda original: _stop_task(original, reach))
    _wrap(zego._Departure, "__call__", lambda original: _departure(original, reach))
    _wrap(Sweeper, "run_once", lambda original: _sweep(original, reach))


def _wrap(owner: type, name: str, wrapper: Callable[[Any], Any]) -> None:
    setattr(owner, name, wrapper(getattr(owner, name)))


def _store_call(name: str, reach: Callable[[str], None], original: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        if name == "receive" and not args[1]:
            # Another thread took the callbacks.
            return original(*args, **kwargs)
        _in_store.name = name
        try:
            result = original(*args, **kwargs)
        finally:
            _in_store.name = None
        claimed_nothing = name == "claim" and not result[1]
        if not claimed_nothing:
            reach(f"{name}.committed")
        return result

    return call


def _claim_events(original: Any, reach: Callable[[str], None]) -> Any:
    def claim(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if result[0]:
            reach("notify.claimed")
        return result

    return claim


def _post(original: Any, reach: Callable[[str], None]) -> Any:
    async def post(*args: Any, **kwargs: Any) -> Any:
        verdict = await original(*args, **kwargs)
        reach("notify.answered")
        return verdict

    return post


def _at_commit(reach: Callable[[str], None]) -> None:
    name = getattr(_in_store, "name", None)
    if name is not None:
        reach(f"{name}.commit")


def _stop_task(original: Any, reach: Callable[[str], None]) -> Any:
    async def stop_task(*args: Any, **kwargs: Any) -> Any:
        token = _stopping.set(True)
        try:
            reach("stop.send")
            reply = await original(*args, **kwargs)
            reach("stop.answered")
            return reply
        finally:
            _stopping.reset(token)

    return stop_task


def _departure(original: Any, reach: Callable[[str], None]) -> Any:
    async def depart(self: Any, event: str, info: object) -> None:
        await original(self, event, info)
        if event == "http11.receive_response_headers.started" and _stopping.get():
            reach("stop.left")

    return depart


def _sweep(original: Any, reach: Callable[[str], None]) -> Any:
    async def run_once(*args: Any, **kwargs: Any) -> Any:
        reach("sweep")
        return await original(*args, **kwargs)

    return run_once


def nursery() -> dict[str, Any] | None:
    """Fork daemons as ordered; return a daemon's order in its own process, None in the nursery's at the end."""
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: set[int] = set()
    unread = b""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        _tell(ready=os.getpid())
        while True:
            for key, _ in selector.select():
                if key.fd == woken:
                    os.read(woken, 4096)
                    _reap(children)
                    continue
                read = os.read(0, 65536)
                if not read:
                    for child in children:
                        os.kill(child, signal.SIGKILL)
                    return None
                *orders, unread = (unread + read).split(b"\n")
                for order in orders:
                    child = os.fork()
                    if not child:
                        signal.set_wakeup_fd(-1)
                        os.close(woken)
                        os.close(wake)
                        return dict(json.loads(order))
                    children.add(child)
                    _tell(started=child)


def _reap(children: set[int]) -> None:
    while children:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        children.discard(child)
        _tell(ended=child, code=os.waitstatus_to_exitcode(status))


def _tell(**fields: object) -> None:
    os.write(1, json.dumps(fields).encode() + b"\n")


def be_a_daemon(order: dict[str, Any]) -> None:
    """Become what ``zego-watchdog`` is with these arguments; its log goes to a file, its stdin is empty."""
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - the process's own
    os.environ.update(order["environment"])
    install(os.environ.get("FAULTS", ""))
    if os.environ.get("FAULTS_TERMINATE"):
        terminator.install()
    sys.argv = ["zego-watchdog", *order["arguments"]]
    cli.main()


if __name__ == "__main__":
    if (order := nursery()) is not None:
        be_a_daemon(order)
