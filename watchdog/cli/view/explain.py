"""The screen of ``explain``."""

from collections.abc import Sequence
from datetime import datetime

from watchdog.cli.view import words
from watchdog.cli.view.events import print_events
from watchdog.cli.view.output import Column, heading, say, show_pairs, show_table
from watchdog.cli.view.tasks import styled
from watchdog.core.kinds import KINDS
from watchdog.core.model import Outcome, Status, Task
from watchdog.insight.explanation import Explanation, Schedule
from watchdog.insight.legible import legible
from watchdog.insight.words import OUTCOME_TEXT, REASON_TEXT, REPORTER
from watchdog.store.reports.history import Row


def print_explanation(found: Explanation) -> None:
    task, decision, now, attempts = found.story.task, found.decision, found.story.now, found.story.attempts
    if task is None or decision is None:
        gone = "its row was deleted by the application or by retention; its attempts are still recorded."
        say(f"Task {found.task_id}: {gone}", "bold")
        _print_end(None, found)
    else:
        app = f"AppId {task.app_id}" if task.app_id else "the default AppId"
        kind = "" if KINDS[task.kind].is_default else f" ({task.kind})"
        say(f"Task {task.task_id}{kind} in room {task.room_id}, {app}: {task.status}", "bold")
        heading("Evidence")
        _print_evidence(task, now)
        if (planned := found.schedule) is None:
            _print_end(task, found)
        else:
            heading("Decision")
            say(f"{decision.verdict}: {words.ruling(decision, now)}")
            say(words.outlook(task, decision, found.policy, now))
            _print_warnings(found)
            heading("Schedule")
            _print_schedule(planned, now)
    heading("Attempts" if attempts else "No attempt yet")
    if attempts:
        _print_attempts(attempts)
    if found.story.events:
        heading("Events")
        print_events(found.story.events, now)


def _print_end(task: Task | None, found: Explanation) -> None:
    """Why and when the task ended, and by which evidence."""
    now = found.story.now
    heading("End")
    if task is not None and task.status is Status.RELEASED:
        say(f"The application released the task{_when(task.ended_at, now)}. The watchdog did not stop it.")
        return
    last = found.ending
    if last is None:
        ended = "" if task is None else f"It ended{_when(task.ended_at, now)}. "
        say(f"{ended}The attempt that ended it is not recorded, or retention has removed it.")
        return
    outcome = Outcome(last["outcome"])
    source = last["evidence_source"]
    reporter = f"reported by {REPORTER.get(source, source)}" if source else "nobody reported who is in the room"
    empty = last["empty_since"]
    if found.end_reason is None:
        why = "the room stayed empty for ZEGO's MaxIdleTime, and the watchdog had not stopped the task before"
    else:
        why = REASON_TEXT[found.end_reason]
    show_pairs(
        [
            ("what", f"{OUTCOME_TEXT[outcome]}{_when(last['replied_at'] or last['recorded_at'], now)}"),
            ("why", why + (f"; empty since {words.stamp(empty)}" if empty else "")),
            ("evidence", reporter + (f" at {words.stamp(last['evidence_at'])}" if last["evidence_at"] else "")),
            ("by", last["instance"]),
        ]
    )


def _when(moment: datetime | None, now: datetime) -> str:
    return "" if moment is None else f" {words.since(moment, now)} ({words.stamp(moment)})"


def _print_warnings(found: Explanation) -> None:
    if not found.story.daemon_alive:
        say("No daemon is alive, so nothing is stopped. Start one: zego-watchdog run", "bold red")
    if found.story.room_refused and found.story.task is not None:
        say(
            f"ZEGO refuses the RoomId {found.story.task.room_id}, so nobody can verify that the room is empty. "
            "Is it the RoomId that the task was started with?",
            "bold red",
        )
    if found.contradicted_at is not None:
        say(
            "The application reports people, but ZEGO has never seen anybody in this room; it was last asked "
            f"{words.since(found.contradicted_at, found.story.now)}. Are RoomId and AppId right?",
            "bold red",
        )
    if found.dead_feed_seconds is not None:
        say(
            f"The feed of hints seems dead: no hint for any room for {words.length(found.dead_feed_seconds)}. Only "
            "stops that ZEGO confirms are made. Next step: zego-watchdog check",
            "bold red",
        )


def _print_evidence(task: Task, now: datetime) -> None:
    def moment(at: datetime | None, otherwise: str) -> str:
        return otherwise if at is None else f"{words.since(at, now)} ({words.stamp(at)})"

    people = "unknown" if task.user_count is None else str(task.user_count)
    if task.user_count is not None and task.user_count_at is not None:
        people += f", from {task.user_count_source} {moment(task.user_count_at, '')}"
    show_pairs(
        [
            ("people", people),
            ("last occupied", moment(task.last_occupied_at, "never seen")),
            ("empty since", moment(task.empty_since, "-")),
            ("started", moment(task.started_at, "-")),
        ]
    )


def _print_schedule(planned: Schedule, now: datetime) -> None:
    def moment(at: datetime) -> str:
        return f"{words.until(at, now)} ({words.stamp(at)})"

    later = "" if planned.is_planned else ", once a daemon has planned it"
    show_pairs(
        [
            ("due", moment(planned.due_at) + later if planned.due_at else "not before the room is known to be empty"),
            (
                "auto-stop",
                moment(planned.auto_stop_at)
                if planned.auto_stop_at
                else "never: ZEGO does not look at its room"
                if planned.window_seconds is None
                else f"{words.length(planned.window_seconds)} after the room becomes empty",
            ),
            ("hold", moment(planned.hold_until) if planned.hold_until else "none"),
            (
                "claim",
                f"{planned.claimed_by}, lease ends {words.until(planned.lease_until, now)}"
                if planned.lease_until
                else "none",
            ),
        ]
    )


def _print_attempts(rows: Sequence[Row]) -> None:
    show_table(
        [
            Column("#", [str(row["attempt"] or "-") for row in rows], right=True),
            Column("WHEN", [words.stamp(row["sent_at"] or row["recorded_at"]) for row in rows]),
            Column("OUTCOME", [styled(row["outcome"]) for row in rows]),
            Column("CODE", [row["code"] or "-" for row in rows]),
            Column("REQUEST ID", [row["request_id"] or "-" for row in rows]),
            Column("HTTP", [str(row["http_status"] or "-") for row in rows], spare=2),
            Column("REASON", [row["reason"] for row in rows], spare=1),
            Column("BY", [row["instance"] for row in rows], spare=3),
        ],
        below=[[legible(words.detail(row[name])) for name in ("message", "detail") if row[name]] for row in rows],
    )
