"""What ``check`` has found, on a terminal."""

from collections.abc import Sequence
from typing import Final

from rich.text import Text

from watchdog.cli.checks.examine import Finding, Level
from watchdog.cli.view import screens, words

_LEVEL_STYLE: Final = {Level.OK: "green", Level.WARN: "bold yellow", Level.FAIL: "bold red"}


def show(found: Sequence[Finding]) -> None:
    """One line for each, and below it what to do."""
    out = screens.console()
    indent = max(len(finding.subject) for finding in found) + 8
    for finding in found:
        level = (f"{finding.level:<4}  ", _LEVEL_STYLE[finding.level])
        subject = (f"{finding.subject:<{indent - 6}}", "bold")
        screens.hanging(out, Text.assemble(level, subject, screens.legible(finding.found)), indent)
        if finding.todo:
            screens.hanging(out, Text(" " * indent + f"-> {screens.legible(finding.todo)}"), indent)
    count = {level: sum(finding.level is level for finding in found) for level in Level}
    bad = f"{words.number(count[Level.WARN], 'warning')}, {words.number(count[Level.FAIL], 'failure')}"
    screens.say(f"{count[Level.OK]} ok, {bad}")
