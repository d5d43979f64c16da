"""Writes zego-watchdog(1) in roff from the help of the command line, so that the two agree."""

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import typer

import watchdog
from watchdog.cli.app.root import app

_KEEP_LINES = "\b"
"""A paragraph of help that begins with this line keeps its line breaks."""

_FILES = (
    ("/etc/zego-watchdog/config.yaml", "The configuration; it explains every key."),
    (
        "/etc/zego-watchdog/secrets/",
        "One file per secret, mode 600. The service sees them as ${CREDENTIALS_DIRECTORY}/zego_NAME.",
    ),
    ("/var/lib/zego-watchdog/zego-watchdog.db", "The database, unless the configuration names another."),
)
_EXIT_CODES = (
    ("0", "done"),
    ("1", "failed, or refused because it might destroy a live transcript"),
    ("2", "wrong usage"),
    ("75", "temporary failure: the same command may succeed later"),
    ("78", "the configuration or the database schema must be corrected first"),
)


def manual(version: str, when: datetime) -> str:
    """Return the page."""
    command = typer.main.get_command(app)
    return "\n".join(_page(command, version, when)) + "\n"


def _page(command: Any, version: str, when: datetime) -> Iterator[str]:
    context = typer.Context(command, info_name="zego-watchdog", max_content_width=1_000_000, terminal_width=1_000_000)
    summary = command.help.partition("\n")[0].rstrip(".")
    yield f'.TH ZEGO\\-WATCHDOG 1 "{when:%Y-%m-%d}" "zego\\-watchdog {_plain(version)}"'
    yield from (".SH NAME", f"zego\\-watchdog \\- {_text(summary[0].lower() + summary[1:])}")
    yield from (".SH SYNOPSIS", ".B zego\\-watchdog", "[\\-\\-config PATH] COMMAND [ARGUMENTS]")
    yield ".SH DESCRIPTION"
    yield from _prose(command.help)
    yield from _parameters(command, context)
    yield ".SH COMMANDS"
    yield from _commands(command, context)
    yield from _table("EXIT STATUS", _EXIT_CODES)
    yield ".SH ENVIRONMENT"
    yield from (".TP", ".B ZEGO_WATCHDOG_CONFIG", "The configuration, unless \\-\\-config names it.")
    yield from (".TP", ".B ZEGO_WATCHDOG_SECTION__KEY", "Any key of the configuration; overrides the file.")
    yield from _table("FILES", _FILES)


def _commands(group: Any, context: typer.Context) -> Iterator[str]:
    for name, command in group.commands.items():
        inner = typer.Context(command, info_name=name, parent=context)
        if hasattr(command, "commands"):
            yield from _commands(command, inner)
            continue
        pieces = " ".join(piece.strip("{}") for piece in command.collect_usage_pieces(inner))
        yield f'.SS "{_plain(inner.command_path)} {_plain(pieces)}"'
        yield from _prose(command.help)
        yield from _parameters(command, inner)


def _parameters(command: Any, context: typer.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and "--help" not in parameter.opts:
            names, text = record
            yield from (".TP", f".B {_plain(names)}", _text(text))


def _prose(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        if paragraph.startswith(_KEEP_LINES):
            yield from (".nf", *(_text(line) for line in paragraph.splitlines()[1:]), ".fi")
        else:
            yield from (_text(line) for line in paragraph.splitlines())


def _table(title: str, rows: tuple[tuple[str, str], ...]) -> Iterator[str]:
    yield f".SH {title}"
    for name, text in rows:
        yield from (".TP", f".B {_plain(name)}", _text(text))


def _plain(text: str) -> str:
    """Escape backslashes and hyphens, which roff would interpret."""
    return text.replace("\\", "\\e").replace("-", "\\-")


def _text(text: str) -> str:
    """Escape a line, which must not begin like a roff request."""
    escaped = _plain(text)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    sys.stdout.write(manual(watchdog.__version__, datetime.fromtimestamp(moment, UTC)))
