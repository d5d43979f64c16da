"""``guard`` and ``guard release``."""

from math import floor, isinf
from pathlib import Path
from typing import Final

from watchdog.cli.commands.lookup import opened
from watchdog.cli.view import words
from watchdog.cli.view.output import say, show_json, show_pairs
from watchdog.cli.view.status import guard_lines
from watchdog.config.settings import Config
from watchdog.core.guard import ALWAYS_ALLOWED
from watchdog.core.model import Verify
from watchdog.errors import WatchdogError
from watchdog.store.polling import PollStore
from watchdog.store.reports.health import all_daemons, release_guard
from watchdog.wiring.from_config import limits

_SCOPE: Final = {
    Verify.REQUIRED: "required: every stop is verified, so the guard has nothing to do",
    Verify.WHEN_POSSIBLE: "when_possible: the guard covers stops made while ZEGO cannot be asked",
    Verify.OFF: "off: the guard covers every stop except `zego-watchdog stop`",
}
_NONE_ALIVE: Final = "no daemon is alive, so nothing is stopped; start one: zego-watchdog run"


def show_guard(path: Path | None, *, as_json: bool) -> None:
    with opened(path) as (config, database):
        now, known = all_daemons(database)
        active = PollStore(database).active()
    alive = [daemon for daemon in known if daemon.alive]
    allowed = limits(config).allowed(active, 1.0)
    if as_json:
        names = ("instance", "guard_tripped_at", "guard_held", "guard_released_until")
        show_json(
            {
                "now": now,
                "tripped": any(daemon.has_tripped for daemon in alive),
                "held": sum(daemon.guard_held or 0 for daemon in alive),
                "active_tasks": active,
                "allowed_per_minute": None if isinf(allowed) else allowed,
                **config.guard.model_dump(),
                "daemons": [{name: getattr(daemon, name) for name in names} for daemon in alive],
            }
        )
        return
    lines = guard_lines(alive, now) or [("guard", "has not tripped" if alive else _NONE_ALIVE)]
    show_pairs([*lines, ("limits", _limits(config, active, allowed)), ("verify", _SCOPE[config.policy.verify])])


def allow_stops(path: Path | None, *, minutes: float, as_json: bool) -> None:
    """Allow all unverified stops for so long. Raises WatchdogError if no daemon is alive."""
    with opened(path) as (_, database):
        told = release_guard(database, 60 * minutes)
    if not told:
        raise WatchdogError(_NONE_ALIVE)
    if as_json:
        show_json({"released_daemons": told, "minutes": minutes})
    else:
        say(f"{words.number(told, 'daemon')} released: unverified stops pass for {words.length(60 * minutes)}")


def _limits(config: Config, active: int, allowed: float) -> str:
    if isinf(allowed):
        return "none: guard.unverified_per_minute and guard.unverified_share are 0"
    found = []
    if rate := config.guard.unverified_per_minute:
        found.append(f"{rate:g} (guard.unverified_per_minute)")
    if share := config.guard.unverified_share:
        number = floor(max(ALWAYS_ALLOWED, share * active))
        tasks = words.number(active, "active task")
        found.append(f"{number:,} (guard.unverified_share: {share:.0%} of {tasks}, never fewer than {ALWAYS_ALLOWED})")
    smaller = "the smaller of " if len(found) == 2 else ""
    return f"{allowed:g} unverified stops per minute for all daemons together: {smaller}{' and '.join(found)}"
