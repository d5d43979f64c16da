"""``explain``."""

from dataclasses import asdict
from pathlib import Path

from watchdog.cli.commands.lookup import find_biography, opened
from watchdog.cli.view.explain import print_explanation
from watchdog.cli.view.output import show_json
from watchdog.cli.view.tasks import task_row
from watchdog.insight.explanation import explain
from watchdog.store.polling import PollStore
from watchdog.wiring.from_config import rules, silence_seconds


def explain_task(path: Path | None, task_id: str, *, as_json: bool) -> None:
    """Print evidence, decision, schedule and attempts. Raises WatchdogError for an unknown TaskId."""
    with opened(path) as (config, database):
        story = find_biography(database, task_id)
        hinted_at = PollStore(database).newest_hint()
    found = explain(story, task_id, rules(config), hinted_at, silence_seconds(config))
    if not as_json:
        print_explanation(found)
        return
    decision, planned = found.decision, found.plan
    show_json(
        {
            "now": story.now,
            "task": None if story.task is None else task_row(story.task),
            "decision": None if decision is None else asdict(decision),
            "plan": None if planned is None else {"due_at": planned.due_at, "auto_stop_at": planned.auto_stop_at},
            "daemon_alive": story.daemon_alive,
            "newest_hint_at": hinted_at,
            "feed_dead": found.dead_feed_seconds is not None,
            "room_refused": story.room_refused,
            "contradicted_at": found.contradicted_at,
            "attempts": story.attempts,
            "events": story.events,
        }
    )
