"""The calls of the store as coroutines, one class for each table or subject.

``await tasks.peek()`` runs ``Tasks.peek`` in the threads that the object was built with. Each method has
the parameters, the result and the errors of the store's method of the same name.
"""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from watchdog.store.aio.threads import Threads
from watchdog.store.attempts import Ledger
from watchdog.store.bots import BotStore
from watchdog.store.callbacks import CallbackStore
from watchdog.store.discovery import AdoptionStore
from watchdog.store.events import EventStore
from watchdog.store.figures import FigureStore
from watchdog.store.heartbeats import Heartbeats
from watchdog.store.pace import PaceStore
from watchdog.store.polling import PollStore
from watchdog.store.retention import RetentionStore
from watchdog.store.tasks import Tasks

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")


class _Calls(Generic[S]):
    """One object of the store, and the threads that its calls run in."""

    def __init__(self, threads: Threads, store: S) -> None:
        self.threads = threads
        self.store = store

    async def together(self, work: Callable[[S], R]) -> R:
        """Run several calls, one after another, in one thread: ``work`` gets the store's object and must not await."""
        return await self.threads.call(work, self.store)


class _InThread(Generic[S, P, R]):
    """A method of the store, called as a coroutine."""

    def __init__(self, method: Callable[Concatenate[S, P], R]) -> None:
        self._name = method.__name__

    def __get__(self, calls: _Calls[S], owner: type[_Calls[S]]) -> Callable[P, Coroutine[Any, Any, R]]:
        return partial(calls.threads.call, getattr(calls.store, self._name))


class AsyncTasks(_Calls[Tasks]):
    now = _InThread(Tasks.now)
    peek = _InThread(Tasks.peek)
    newly_empty = _InThread(Tasks.newly_empty)
    save_plans = _InThread(Tasks.save_plans)
    claim = _InThread(Tasks.claim)
    claim_one = _InThread(Tasks.claim_one)
    renew = _InThread(Tasks.renew)
    set_aside = _InThread(Tasks.set_aside)
    due = _InThread(Tasks.due)
    note = _InThread(Tasks.note)


class AsyncLedger(_Calls[Ledger]):
    intend = _InThread(Ledger.intend)
    record = _InThread(Ledger.record)
    replay = _InThread(Ledger.replay)
    reap = _InThread(Ledger.reap)


class AsyncHeartbeats(_Calls[Heartbeats]):
    beat = _InThread(Heartbeats.beat)
    depart = _InThread(Heartbeats.depart)


class AsyncCallbacks(_Calls[CallbackStore]):
    receive = _InThread(CallbackStore.receive)


class AsyncPolling(_Calls[PollStore]):
    take = _InThread(PollStore.take)
    observe = _InThread(PollStore.observe)
    active = _InThread(PollStore.active)
    newest_hint = _InThread(PollStore.newest_hint)


class AsyncBots(_Calls[BotStore]):
    are_known = _InThread(BotStore.are_known)
    of = _InThread(BotStore.of)


class AsyncAdoption(_Calls[AdoptionStore]):
    unknown = _InThread(AdoptionStore.unknown)
    register = _InThread(AdoptionStore.register)


class AsyncPace(_Calls[PaceStore]):
    reserve = _InThread(PaceStore.reserve)


class AsyncEvents(_Calls[EventStore]):
    choose = _InThread(EventStore.choose)
    claim = _InThread(EventStore.claim)
    conclude = _InThread(EventStore.conclude)
    redeliver = _InThread(EventStore.redeliver)


class AsyncRetention(_Calls[RetentionStore]):
    turn = _InThread(RetentionStore.turn)
    prune_callbacks = _InThread(RetentionStore.prune_callbacks)
    prune_gone = _InThread(RetentionStore.prune_gone)


class AsyncFigures(_Calls[FigureStore]):
    """Figures are read ``together``: to wake a thread costs more than most of them."""
