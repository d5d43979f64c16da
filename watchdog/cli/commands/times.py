"""Reads the times in options."""

from datetime import datetime, timedelta

import typer

from watchdog.cli.view import words


def read_length(text: str) -> timedelta:
    """Read ``2h``. Raises typer.BadParameter."""
    try:
        return words.parse_length(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def read_moment(text: str) -> datetime:
    """Read an ISO time. Raises typer.BadParameter."""
    try:
        return words.parse_moment(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def read_length_or_moment(text: str | None) -> timedelta | datetime | None:
    """Read ``2h``, which means that long ago, or an ISO time. Raises typer.BadParameter."""
    if text is None:
        return None
    return read_moment(text) if "-" in text else read_length(text)
