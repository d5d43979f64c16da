"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer


def _or_the_global_one(ctx: typer.Context, value: Path | None) -> Path | None:
    return value or (ctx.obj if isinstance(ctx.obj, Path) else None)


ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="PATH", help="The configuration file.", callback=_or_the_global_one)
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON: column names as keys, times in UTC.")]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="A TaskId.")]
InRoom = Annotated[str | None, typer.Option("--room", metavar="ROOM", help="Only this RoomId.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100_000, metavar="N", help="Show at most this many.")]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="WHEN", help="Only since then: 2h (ago), today, yesterday, or an ISO time."),
]
