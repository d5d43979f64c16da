"""``advise``: reads empty spells, and prints what other graces would have done. It changes nothing."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import typer

from watchdog.cli.commands.lookup import opened
from watchdog.cli.commands.target import STDOUT, replaced
from watchdog.cli.view import words
from watchdog.cli.view.advise import Answer, curve_rows, print_advice
from watchdog.cli.view.advise_page import advice_page
from watchdog.cli.view.output import note, show_json
from watchdog.clock import SystemClock
from watchdog.config.settings import Config
from watchdog.core.advice import FEWEST_SPELLS, advise, differing
from watchdog.core.policy import Policy
from watchdog.errors import TooFewSpells
from watchdog.report import charts
from watchdog.store.engine import Engine
from watchdog.store.reports.spells import Found, find_spells, newest_spells
from watchdog.wiring.from_config import app_ids, rules

_LISTED: Final = 3
"""Tasks listed for each grace and each way in which it differs."""

_USUAL_GRACES: Final = (15.0, 30.0, 45.0, 60.0, 90.0, 120.0)
_MOST_GRACES: Final = 12
_LONGEST_GRACE_SECONDS: Final = 1800


def show_advice(path: Path | None, *, graces: str | None, since: str, app_id: int | None, as_json: bool) -> None:
    """Print the estimate. Raises typer.BadParameter, ConfigError, DatabaseError, TooFewSpells."""
    answer = _asked(path, graces, since, app_id)
    if as_json:
        show_json(_json(answer))
    else:
        print_advice(answer)


def write_advice(
    path: Path | None, html: Path, *, graces: str | None, since: str, app_id: int | None, force: bool
) -> None:
    """Write the estimate to a file, or to stdout for ``-``. Raises as ``show_advice``, and WatchdogError."""
    # Not after a minute of reading.
    charts.require()
    page = advice_page(_asked(path, graces, since, app_id))
    with replaced(None if html == STDOUT else html, "--html", force=force) as target:
        target.write(page.encode())
        target.flush()
    if html != STDOUT:
        note(f"the estimate is in {html}")


def _asked(path: Path | None, graces: str | None, since: str, app_id: int | None) -> Answer:
    wanted = None if graces is None else parse_graces(graces)
    began = words.parse_past(since, "'--since'", SystemClock())
    assert began is not None  # noqa: S101 - the option has a default
    with opened(path) as (config, database):
        return answered(config, database, wanted, began, app_id)


def answered(
    config: Config, database: Engine, graces: Sequence[float] | None, since: datetime | timedelta, app_id: int | None
) -> Answer:
    """Estimate what ``graces`` would have done; without any, those that fit the window. Raises TooFewSpells."""
    policy = rules(config)
    chosen = sorted({*(graces or _usual(policy)), policy.grace_seconds})
    default_app = next(iter(app_ids(config)), None)
    found = find_spells(database, since, app_id=app_id, default_app=default_app)
    if found.count < FEWEST_SPELLS:
        raise TooFewSpells(_too_few(found, app_id))
    newest = newest_spells(database, found.since, app_id=app_id, default_app=default_app)
    return Answer(
        found=found,
        policy=policy,
        polling_seconds=config.schedule.occupancy_poll_seconds if config.zego.rtc_url else 0.0,
        app_id=app_id,
        advice=advise(found.spells, policy, chosen),
        listed=differing(((one, one.spell) for one in newest), policy, chosen, at_most=_LISTED),
    )


def parse_graces(text: str) -> Sequence[float]:
    """Read ``20,45,90``: seconds. Raises typer.BadParameter."""
    try:
        graces = [float(part) for part in text.split(",")]
    except ValueError:
        graces = []
    if not graces or not all(math.isfinite(one) and 0 <= one <= _LONGEST_GRACE_SECONDS for one in graces):
        told = f"{text!r}: write seconds from 0 to {_LONGEST_GRACE_SECONDS}, with commas between them, like 20,45,90"
        raise typer.BadParameter(told, param_hint="'--grace'")
    if len(graces) > _MOST_GRACES:
        raise typer.BadParameter(f"{len(graces)} are too many: at most {_MOST_GRACES}", param_hint="'--grace'")
    return graces


def _usual(policy: Policy) -> Sequence[float]:
    longest = policy.max_idle_seconds - policy.safety_margin_seconds
    return [grace for grace in _USUAL_GRACES if grace <= longest]


def _too_few(found: Found, app_id: int | None) -> str:
    of_app = "" if app_id is None else f" of AppId {app_id}"
    spells = f"{words.number(found.count, 'empty spell')}{of_app} ended since {words.stamp(found.since)}"
    return (
        f"{spells}, and an estimate needs at least {FEWEST_SPELLS}: with fewer, chance outweighs the difference "
        "between two graces; give an earlier --since, or repeat this later, when more rooms have been empty"
    )


def _json(answer: Answer) -> dict[str, Any]:
    found, advice = answer.found, answer.advice
    return {
        "now": found.now,
        "since": found.since,
        "app_id": answer.app_id,
        "spells": advice.spells,
        "endings": advice.endings,
        "returns_after_stops": advice.returns_after_stops,
        "sources": {source or "none": number for source, number in found.sources.items()},
        "occupancy_poll_seconds": answer.polling_seconds,
        "configured_grace_seconds": answer.policy.grace_seconds,
        "horizon_seconds": advice.horizon_seconds,
        "returned": {"left": curve_rows(advice.left, advice), "never_joined": curve_rows(advice.never_joined, advice)},
        "graces": [asdict(candidate) for candidate in advice.candidates],
        "tasks": [
            {
                "grace_seconds": grace,
                "difference": difference,
                "task_id": named.task_id,
                "room_id": named.room_id,
                "empty_since": named.empty_since,
                "ending": named.spell.ending,
                "observed_seconds": named.spell.seconds,
                "returned": named.spell.returned,
            }
            for grace, difference, named in answer.listed
        ],
    }
