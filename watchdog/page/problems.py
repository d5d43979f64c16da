"""What an operator should know first: each problem with its next step. Texts are ``problem.…`` and ``step.…``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from watchdog.core.model import Mode, Outcome
from watchdog.page.live import Live
from watchdog.store.reports.glance import Glance, Lately
from watchdog.store.reports.health import modes_alive


class Level(StrEnum):
    """How bad it is: tasks may not be stopped as they should be, or something is worth a look."""

    BAD = "bad"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Problem:
    """``values`` are for both texts; ``href`` leads to a page about it, ``detail`` is a text in English."""

    name: str
    level: Level
    values: dict[str, Any] = field(default_factory=dict)
    detail: str | None = None
    href: str | None = None


def problems(live: Live, now: Glance, lately: Lately | None) -> Sequence[Problem]:
    """Return what is wrong, the worst first."""
    found = [*_of_the_daemon(live), *_of_the_database(now)]
    if lately is not None:
        found += _of_late(live, lately)
    return sorted(found, key=lambda problem: problem.level is not Level.BAD)


def _of_the_daemon(live: Live) -> Iterator[Problem]:
    if live.database_trouble:
        yield Problem("database", Level.BAD, detail=live.database_trouble)
    elif not live.sweeps:
        yield Problem("sweeps", Level.BAD)
    if live.unanswered:
        yield Problem("unanswered", Level.BAD, {"apps": ", ".join(map(str, live.unanswered))})
    if live.feed_is_dead:
        yield Problem("feed", Level.BAD)
    if live.too_old:
        yield Problem("too_old", Level.WARN, {"number": live.too_old})
    if live.webhook_problem is not None:
        yield Problem("webhook", Level.WARN, detail=live.webhook_problem)
    if live.reload_problem is not None:
        yield Problem("reload", Level.WARN, detail=live.reload_problem)


def _of_the_database(now: Glance) -> Iterator[Problem]:
    if not any(daemon.alive for daemon in now.daemons):
        yield Problem("no_daemon", Level.BAD)
    if tripped := [daemon for daemon in now.daemons if daemon.has_tripped]:
        held = sum(daemon.guard_held or 0 for daemon in tripped)
        yield Problem("guard", Level.BAD, {"number": held})
    if now.blocked_apps:
        yield Problem(
            "blocked", Level.BAD, {"apps": ", ".join(map(str, now.blocked_apps))}, href="/history?outcome=blocked"
        )
    if len(modes := modes_alive(now.daemons)) > 1:
        yield Problem("modes", Level.WARN, {"modes": ", ".join(modes)})
    if now.events.undelivered:
        yield Problem("undelivered", Level.WARN, {"number": now.events.undelivered})


def _of_late(live: Live, lately: Lately) -> Iterator[Problem]:
    # In observe mode ZEGO ends every task.
    if (missed := lately.outcomes.get(Outcome.AUTO_STOPPED, 0)) and live.mode is Mode.ENFORCE:
        yield Problem("missed", Level.WARN, {"number": missed}, href="/history?outcome=auto_stopped")
    if rejected := lately.outcomes.get(Outcome.REJECTED, 0):
        yield Problem("rejected", Level.WARN, {"number": rejected}, href="/history?outcome=rejected")
    if lately.windows is not None and lately.windows.is_faster_than_configured:
        yield Problem("faster", Level.WARN, {"seconds": round(lately.windows.early)})
    if lately.returns.returned:
        values = {"number": lately.returns.returned, "stops": lately.returns.watched}
        yield Problem("returned", Level.WARN, values)
