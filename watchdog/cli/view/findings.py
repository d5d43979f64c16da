"""The screen of ``check``."""

from collections.abc import Sequence
from typing import Final

from rich.text import Text

from watchdog.cli.checks.findings import Finding, Level
from watchdog.cli.view import words
from watchdog.cli.view.output import console, hanging, say
from watchdog.insight.legible import legible

_LEVEL_STYLE: Final = {Level.OK: "green", Level.WARN: "bold yellow", Level.FAIL: "bold red"}


def print_findings(found: Sequence[Finding]) -> None:
    out = console()
    indent = max(len(finding.subject) for finding in found) + 8
    for finding in found:
        level = (f"{finding.level:<4}  ", _LEVEL_STYLE[finding.level])
        subject = (f"{finding.subject:<{indent - 6}}", "bold")
        hanging(out, Text.assemble(level, subject, legible(finding.found)), indent)
        if finding.todo:
            hanging(out, Text(" " * indent + f"-> {legible(finding.todo)}"), indent)
    count = {level: sum(finding.level is level for finding in found) for level in Level}
    bad = f"{words.number(count[Level.WARN], 'warning')}, {words.number(count[Level.FAIL], 'failure')}"
    say(f"{count[Level.OK]} ok, {bad}")
