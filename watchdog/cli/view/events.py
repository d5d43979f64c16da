"""Tables of events."""

from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from watchdog.cli.view import words
from watchdog.cli.view.legible import legible
from watchdog.cli.view.output import Column, show_table
from watchdog.store.reports.history import Row


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
