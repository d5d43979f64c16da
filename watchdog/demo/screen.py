"""Draws a snapshot, on 80 columns or more. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from watchdog.core.model import Outcome
from watchdog.demo.application import Interruption, Row
from watchdog.demo.snapshot import Line, Snapshot, State

WIDTH: Final = 80
_WIDE: Final = 100
_OTHER_LINES: Final = 6
"""Lines besides rooms and captions: title, header, blank, two lines of footing, cursor."""
_MOST_CAPTIONS: Final = 12
_LEGEND: Final = "hint: from the backend; real: in the room; due: our stop; auto-stop: ZEGO's own"

_OUTCOME_WIDTH: Final = 25
_COLUMNS: Final[Sequence[tuple[str, int, JustifyMethod]]] = (
    ("room", 7, "left"),
    ("hint", 4, "right"),
    ("real", 4, "right"),
    ("state", 20, "left"),
    ("due", 4, "right"),
    ("auto-stop", 9, "right"),
    ("outcome and Code", _OUTCOME_WIDTH, "left"),
    ("RequestId", 19, "left"),
)
"""The last one is shown on wide screens only."""

_STYLE: Final[Mapping[State, str]] = {
    State.NOT_STARTED: "bright_black",
    State.IN_USE: "green",
    State.UNKNOWN: "magenta",
    State.EMPTY: "yellow",
    State.HELD: "blue",
    State.ASKING: "cyan",
    State.SENT: "bold cyan",
    State.RETRY: "bold yellow",
    State.STOPPED: "bold",
    State.RELEASED: "bright_black",
    State.AUTO_STOPPED: "magenta",
    State.FAILED: "bold red",
}
_OUTCOME_STYLE: Final[Mapping[str, str]] = {
    Outcome.STOPPED: "bold green",
    Outcome.STOPPED_EARLIER: "bold green",
    Outcome.SPARED: "bold magenta",
    Outcome.AUTO_STOPPED: "bold red",
    Outcome.REJECTED: "bold red",
}
_SOON_SECONDS: Final = 10


def draw(snapshot: Snapshot, *, width: int = WIDTH, height: int = 24) -> RenderableType:
    """The whole screen; captions use the rows of ``height`` that the rooms leave free."""
    table = _table()
    columns = _COLUMNS if width >= _WIDE else _COLUMNS[:-1]
    for name, columns_width, justify in columns:
        table.add_column(name, width=columns_width, justify=justify, no_wrap=True)
    for line in snapshot.lines:
        table.add_row(*_cells(line)[: len(columns)])
    space = max(1, min(_MOST_CAPTIONS, height - len(snapshot.lines) - _OTHER_LINES))
    captions = [_caption(at, text) for at, text in snapshot.captions[-space:]]
    blanks = [Text()] * (space - len(captions))
    return Group(_title(snapshot), table, Text(), *captions, *blanks, _dim(_LEGEND), _dim(snapshot.footing))


def _table() -> Table:
    return Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold underline")


def _title(snapshot: Snapshot) -> Text:
    done = min(1.0, snapshot.at / snapshot.seconds)
    bar = "━" * round(20 * done)
    return Text.assemble(
        ("zego-watchdog", "bold"),
        f"  {min(snapshot.at, snapshot.seconds):3.0f} s of {snapshot.seconds:.0f} ",
        (bar, "green"),
        ("━" * (20 - len(bar)), "bright_black"),
    )


def _dim(text: str) -> Text:
    return Text(text, style="bright_black", no_wrap=True, overflow="ellipsis")


def _cells(line: Line) -> tuple[Text, ...]:
    style = _STYLE[line.state]
    started = line.state is not State.NOT_STARTED
    hint = "" if not started else "?" if line.hint is None else str(line.hint)
    real = "" if not started else f"{line.people}+{line.others}" if line.others else str(line.people)
    # Highlight a hint that contradicts the real state: it is the dangerous case.
    differ = started and line.hint is not None and (line.hint > 0) != (line.people > 0)
    return (
        Text(line.room, style=style),
        Text(hint, style="bold red" if differ else style),
        Text(real, style="bold red" if differ else style),
        Text(line.state, style=style),
        Text(_countdown(line.due), style=style),
        _auto_stop(line),
        Text(outcome_words(line), style=_OUTCOME_STYLE.get(line.outcome or "", "yellow")),
        Text(line.request_id or "", style="bright_black"),
    )


def _auto_stop(line: Line) -> Text:
    if line.auto_stop is None:
        # For ZEGO a room with users that are not people never becomes empty.
        never = line.others and not line.people and line.state in {State.EMPTY, State.ASKING, State.SENT, State.RETRY}
        return Text("never" if never else "", style="bold red")
    return Text(_countdown(line.auto_stop), style="bold red" if line.auto_stop < _SOON_SECONDS else "")


def _countdown(seconds: float | None) -> str:
    return "" if seconds is None else f"{max(0, seconds):.0f} s"


def outcome_words(line: Line) -> str:
    """The last attempt's outcome, with ZEGO's Code, or the HTTP status without one.

    The kind of a task of another API than ASR's follows as long as there is space.
    """
    answer = line.code or (f"HTTP {line.http_status}" if line.http_status else "")
    words = " ".join(filter(None, (line.outcome, answer)))
    with_kind = f"{words} ({line.kind})".strip()
    return words if line.kind == "asr" or len(with_kind) > _OUTCOME_WIDTH else with_kind


def _caption(at: float, text: str) -> Text:
    room, _, rest = text.partition(": ")
    caption = Text.assemble((f"{at:3.0f} s  ", "bright_black"), (room, "bold"), f": {rest}")
    caption.no_wrap = True
    caption.overflow = "ellipsis"
    return caption


def plain_caption(at: float, text: str) -> str:
    return f"{at:3.0f} s  {text}"


def summary(lines: Sequence[Line]) -> str:
    """The number of rooms in each state, for output without a table."""
    counts = Counter(line.state.partition(",")[0] for line in lines if line.state is not State.NOT_STARTED)
    return "; ".join(f"{count} {state}" for state, count in counts.most_common())


def rows_as_table(rows: Sequence[Row]) -> Table:
    table = _table()
    for name in rows[0] if rows else ():
        number = any(isinstance(row[name], int | float) for row in rows)
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    return table


def interruption_words(found: Interruption) -> str:
    """How long nobody transcribed a room, from our stop to the new start."""
    return (
        f"{found.room}: no transcript for {found.seconds:.1f} s; "
        f"a new task was started {found.reaction_seconds:.1f} s after the event"
    )


def left_words(room: str) -> str:
    """Why the ledger has a miss that the verdict does not count."""
    return f"{room}: its backend reports nobody, so it was left to ZEGO; zego-watchdog status counts it as missed"


def attempt_words(attempt: Row) -> str:
    code = attempt["code"]
    match Outcome(attempt["outcome"]):
        case Outcome.STOPPED if attempt["kind"] == "agent":
            text = f"stopped by DeleteAgentInstance, Code {code}"
        case Outcome.STOPPED:
            text = f"stopped, Code {code}"
        case Outcome.STOPPED_EARLIER:
            text = f"Code {code}, no such task: an earlier request stopped it"
        case Outcome.RETRY if code is None:
            text = f"ZEGO answers HTTP {attempt['http_status']}; will retry"
        case Outcome.RETRY:
            text = f"ZEGO answers Code {code}, rate limit; will retry"
        case Outcome.UNKNOWN:
            text = "no answer, so it may be stopped or not; will retry"
        case Outcome.SPARED:
            text = "ZEGO reports people, so no stop is sent"
        case Outcome.WITHHELD:
            text = "ZEGO cannot report who is there, so no stop is sent yet"
        case Outcome.AUTO_STOPPED:
            text = f"ZEGO's callback {code} reports the auto-stop; recorded"
        case outcome:
            text = f"{outcome}, Code {code}"
    return f"{attempt['room_id']}: {text}"
