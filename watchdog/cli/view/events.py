"""Tables of events, and what came back from the webhook."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.text import Text

from watchdog.cli.view import words
from watchdog.cli.view.output import Column, show_pairs, show_table
from watchdog.insight.legible import legible
from watchdog.store.reports.history import Row


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a sample. ``status`` is None without an answer; then ``error`` says why."""

    host: str
    type: str
    webhook_id: str
    signatures: int
    milliseconds: int
    status: int | None
    answer: str
    error: str | None

    @property
    def is_delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    def as_row(self) -> Row:
        """For JSON."""
        return {"delivered": self.is_delivered} | {name: getattr(self, name) for name in self.__slots__}


def print_tried(tried: Tried, next_step: str | None) -> None:
    """Print what was sent, what came back, and what to do."""
    signed = "one signature" if tried.signatures == 1 else f"{tried.signatures} signatures"
    lines: list[tuple[str, str | Text]] = [
        ("sent", f"event {tried.type} to {tried.host}, webhook-id {tried.webhook_id}, {signed}"),
    ]
    took = f"after {tried.milliseconds:,} ms"
    if tried.status is None:
        lines.append(("no answer", Text(f"{legible(tried.error or '')} ({took})", "bold red")))
    else:
        style = "bold green" if tried.is_delivered else "bold red"
        lines.append(("answer", Text(f"HTTP {tried.status} {took}", style)))
    if tried.answer:
        lines.append(("body", tried.answer))
    if next_step is not None:
        lines.append(("next step", next_step))
    show_pairs(lines)


def no_events(*, written: bool, undelivered: bool, task: str | None) -> str:
    """What an empty list of events means."""
    about = "" if task is None else f" of task {task}"
    if undelivered:
        return f"No event{about} is undelivered."
    if not written:
        return f"No event{about}: notify.events is empty, so none are written. Write for example: events: [all]"
    return f"No event{about} yet. docs/events.md says what writes one."


def print_events(rows: Sequence[Row], now: datetime, *, with_task: bool = False) -> None:
    """Print one line for each event, and below it what the receiver said last."""
    task = [Column("TASK", [row["task_id"] for row in rows])] if with_task else []
    show_table(
        [
            Column("ID", [str(row["id"]) for row in rows], right=True),
            Column("WHEN", [words.stamp(row["occurred_at"]) for row in rows]),
            Column("EVENT", [row["type"] for row in rows]),
            *task,
            Column("WEBHOOK", [delivery(row, now) for row in rows]),
            Column("TRIES", [str(row["attempts"] or "-") for row in rows], right=True),
            Column("HANDLED", [_stamp(row["handled_at"]) for row in rows], spare=1),
        ],
        below=[[legible(row["error"])] if row["error"] else [] for row in rows],
    )


def delivery(row: Row, now: datetime) -> str | Text:
    """Say what became of an event's delivery by webhook."""
    if row["delivered_at"] is not None:
        return f"delivered {words.stamp(row['delivered_at'])}"
    if row["wake_at"] is not None:
        return "being delivered" if row["claimed_by"] else f"to be delivered {words.until(row['wake_at'], now)}"
    return Text("UNDELIVERED", "bold red") if row["attempts"] else "-"


def _stamp(moment: datetime | None) -> str:
    return "-" if moment is None else words.stamp(moment)
