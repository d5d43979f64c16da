"""What ``guard`` shows and does."""

from pathlib import Path
from typing import Final

from watchdog import config as configuration
from watchdog.cli.view import screens, words
from watchdog.config.settings import Config
from watchdog.core.model import Verify
from watchdog.errors import WatchdogError
from watchdog.store.polling import PollStore
from watchdog.store.reports import health
from watchdog.wiring import from_config
from watchdog.wiring.database import opened

_NONE_ALIVE: Final = "no daemon is alive, so nothing is stopped: zego-watchdog run"


def show(path: Path | None, *, as_json: bool) -> None:
    """The state of every daemon's guard."""
    config = configuration.load(path)
    with opened(config) as database:
        now, known = health.all_daemons(database)
        active = PollStore(database).active()
    alive = [daemon for daemon in known if daemon.alive]
    allowed = from_config.limits(config).allowed(active, 1.0)
    if as_json:
        names = ("instance", "guard_tripped_at", "guard_held", "guard_released_until")
        screens.show_json(
            {
                "now": now,
                "tripped": any(daemon.has_tripped for daemon in alive),
                "held": sum(daemon.guard_held or 0 for daemon in alive),
                "active_tasks": active,
                "allowed_per_minute": None if allowed == float("inf") else allowed,
                **config.guard.model_dump(),
                "daemons": [{name: getattr(daemon, name) for name in names} for daemon in alive],
            }
        )
        return
    lines = screens.guard_lines(alive, now) or [("guard", "has not tripped" if alive else _NONE_ALIVE)]
    screens.show_pairs([*lines, ("limits", _limits(config, active, allowed)), ("verify", _concerned(config))])


def _limits(config: Config, active: int, allowed: float) -> str:
    if allowed == float("inf"):
        return "none: guard.unverified_per_minute and guard.unverified_share are 0"
    return (
        f"{allowed:g} unverified stops a minute at present, by all daemons together: at most"
        f" {config.guard.unverified_per_minute:g}, and {config.guard.unverified_share:.0%} of"
        f" {words.number(active, 'active task')}, but five in any case; 0 is no limit"
    )


def _concerned(config: Config) -> str:
    match config.policy.verify:
        case Verify.REQUIRED:
            return "required: no stop is unverified, so the guard has nothing to do"
        case Verify.WHEN_POSSIBLE:
            return "when_possible: the guard is about stops made while ZEGO cannot be asked"
        case Verify.OFF:
            return "off: the guard is about every stop but an operator's own"


def release(path: Path | None, *, minutes: float, as_json: bool) -> None:
    """Let everything pass for so long. Raises WatchdogError where nobody hears it."""
    config = configuration.load(path)
    with opened(config) as database:
        told = health.release_guard(database, 60 * minutes)
    if not told:
        raise WatchdogError(_NONE_ALIVE)
    if as_json:
        screens.show_json({"released_daemons": told, "minutes": minutes})
    else:
        screens.say(f"{words.number(told, 'daemon')} told: unverified stops pass for {words.length(60 * minutes)}")
