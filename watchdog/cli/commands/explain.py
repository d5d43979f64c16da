"""``explain``."""

from dataclasses import asdict
from pathlib import Path

from watchdog.cli.commands.lookup import find_biography, opened
from watchdog.cli.view.explain import Explanation, print_explanation
from watchdog.cli.view.output import show_json
from watchdog.cli.view.tasks import task_row
from watchdog.core.model import Status
from watchdog.core.policy import Decision, Rule, Verdict, decide, plan
from watchdog.store.polling import PollStore
from watchdog.wiring.from_config import rules, silence_seconds


def explain_task(path: Path | None, task_id: str, *, as_json: bool) -> None:
    """Print evidence, decision, schedule and attempts. Raises WatchdogError for an unknown TaskId."""
    with opened(path) as (config, database):
        story = find_biography(database, task_id)
        newest_hint_at = PollStore(database).newest_hint()
    policy, now, task = rules(config), story.now, story.task
    decision = None if task is None else decide(task, None, policy, now, watching_since=story.watching_since)
    if decision is not None and decision.rule is Rule.HINT_SAYS_EMPTY and story.guard_tripped:
        decision = Decision(Verdict.UNKNOWN, Rule.GUARDED)
    silence = None if newest_hint_at is None else (now - newest_hint_at).total_seconds()
    if silence is not None and silence <= silence_seconds(config):
        silence = None
    planned = None if task is None or task.status is not Status.ACTIVE else plan(task, policy, now)
    if not as_json:
        print_explanation(Explanation(task_id, story, policy, decision, planned, dead_feed_seconds=silence))
        return
    show_json(
        {
            "now": now,
            "task": None if task is None else task_row(task),
            "decision": None if decision is None else asdict(decision),
            "plan": None if planned is None else {"due_at": planned.due_at, "auto_stop_at": planned.auto_stop_at},
            "daemon_alive": story.daemon_alive,
            "newest_hint_at": newest_hint_at,
            "feed_dead": silence is not None,
            "room_refused": story.room_refused,
            "attempts": story.attempts,
            "events": story.events,
        }
    )
