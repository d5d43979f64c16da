"""Commands whose help, usage and errors use our words instead of the framework's, and whose texts are UTF-8."""

import os
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

_TYPES: Final = re.compile(r" (?:<(?:int|float)(?: range)?>|(?:INTEGER|FLOAT)(?: RANGE)?)$")
_OTHER_TYPE: Final = re.compile(r" <([^>]+)>$")
_HELP: Final = (
    (re.compile(r"([\d.]+)<=x<=([\d.]+)"), r"from \1 to \2"),
    (re.compile(r"x>=([\d.]+)"), r"\1 or more"),
    (re.compile(r" *\[required\]"), ""),
)
_ERRORS: Final = (
    (re.compile(r"^Value error, "), ""),
    (re.compile(r"^Input should be a valid integer.*"), "write a whole number"),
    (re.compile(r"^Input should be a valid number.*"), "write a number"),
    (re.compile(r"^Input should be a finite number.*"), "write a finite number"),
    (re.compile(r"^Input should be greater than or equal to (.*)"), r"write \1 or more"),
    (re.compile(r"^Input should be less than or equal to (.*)"), r"write \1 or less"),
    (re.compile(r"^Input should be "), "it should be "),
)


class _WrongUsage(typer.BadParameter):
    """Wrong usage that no single option is to blame for."""

    def format_message(self) -> str:
        return self.message


def in_our_words(error: typer.BadParameter) -> typer.BadParameter:
    """Return the error to raise instead of ``error``."""
    for pattern, words in _ERRORS:
        error.message = pattern.sub(words, error.message)
    unnamed = error.param is None and not error.param_hint
    return _WrongUsage(error.message, error.ctx) if unnamed else error


class _Plain:
    """What commands and groups have in common."""

    params: list[Any]
    help: str | None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for param in self.params:
            param.get_help_record = partial(_plain_record, param.get_help_record, param.param_type_name)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]  # type: ignore[misc]  # the other base has it

    def get_short_help_str(self, limit: int = 45) -> str:  # noqa: ARG002  # the framework's signature
        """Return the whole first line: it is wrapped instead of cut."""
        return (self.help or "").partition("\n")[0]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]  # the other base has it
        for param in self.params:
            value = ctx.params.get(param.name)
            if isinstance(value, str):
                ctx.params[param.name] = _text(value, ctx, param)
        return rest


class PlainCommand(_Plain, TyperCommand):
    pass


class PlainGroup(_Plain, TyperGroup):
    pass


def _plain_record(record: Callable[[Any], tuple[str, str] | None], kind: str, ctx: Any) -> tuple[str, str] | None:
    found = record(ctx)
    if found is None:
        return None
    name, text = found
    if kind == "argument":
        name = name.partition(" ")[0].strip("{}")
    else:
        name = _OTHER_TYPE.sub(r" \1", _TYPES.sub(" NUMBER", name))
    for pattern, words in _HELP:
        text = pattern.sub(words, text)
    return name, text


def _text(value: str, ctx: Any, param: Any) -> str:
    """Return the argument as UTF-8 text, whatever the locale. Raises typer.BadParameter."""
    if not value and param.param_type_name == "argument":
        raise typer.BadParameter("it is empty", ctx, param)
    try:
        # A byte that the locale cannot decode is a lone surrogate here: PEP 383.
        return os.fsencode(value).decode() if any("\ud800" <= c <= "\udfff" for c in value) else value
    except UnicodeError:
        raise typer.BadParameter("it is not UTF-8 text", ctx, param) from None
