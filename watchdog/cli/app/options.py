"""Arguments and options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer


def _or_the_global_one(ctx: typer.Context, value: Path | None) -> Path | None:
    return value or (ctx.obj if isinstance(ctx.obj, Path) else None)


ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="PATH", help="The configuration.", callback=_or_the_global_one),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, with the columns' names as keys and times in UTC.")]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="A TaskId.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100_000, metavar="N", help="How many to show at most.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="WHEN", help="Only from then on: 2h ago, or an ISO time in UTC.")
]
