"""What the daemon that serves the page knows of itself, without asking the database."""

from dataclasses import dataclass

from watchdog.core.model import Mode
from watchdog.services.figures import Known


@dataclass(frozen=True, slots=True)
class Live:
    """The daemon at this moment. Problems are texts for operators, None or empty if there is none."""

    version: str
    instance: str
    mode: Mode
    sweeps: bool
    """Whether sweeps succeed."""

    database_trouble: str
    is_away: bool
    unanswered: tuple[int, ...]
    """AppIds about whose rooms ZEGO does not answer."""

    feed_is_dead: bool
    webhook_problem: str | None
    reload_problem: str | None
    active: int | None
    """Active tasks at the last count."""

    known: Known | None
    too_old: int | None
    """Active tasks older than ``policy.max_age_seconds``, at the last count; None without a limit."""
