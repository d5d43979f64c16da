"""The recipes of CONTRIBUTING.md: what is easily forgotten is noticed here."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from watchdog.config.settings import Config
from watchdog.daemon import reload
from watchdog.daemon.metrics import SHOWN, Metrics
from watchdog.observer import Observer
from watchdog.wiring.parts import Parts

ROOT = Path(__file__).parents[2]
SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted((ROOT / "watchdog").rglob("*.py"))}
KEYS = [
    (section, key)
    for section, settings in Config.model_fields.items()
    for key in getattr(settings.annotation, "model_fields", ())
]


def found(pattern: str, *, under: str = "watchdog/") -> set[str]:
    return {match for path, text in SOURCES.items() if path.startswith(under) for match in re.findall(pattern, text)}


# A metric


def test_what_can_be_observed_is_observed() -> None:
    methods = {name for name, _ in inspect.getmembers(Observer, inspect.isfunction)}
    assert methods - found(r"\b(?:observer|self\._observer|self\.metrics)\.(\w+)\(") == set()
    assert methods - {"show"} <= vars(Metrics).keys()


def test_what_can_be_shown_is_shown() -> None:
    assert {shown.name for shown in SHOWN} == found(r"(?:observer|metrics|self)\.show\(\s*\"(\w+)\"")


# A configuration key


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_a_key_is_used(section: str, key: str) -> None:
    names = {key, *(name for name, value in _properties(section).items() if key in _read_by(value.fget))}
    whole = found(r"\bconfig\.(\w+)\.model_dump\(")
    assert section in whole or names & (
        found(rf"(?<![\"`])\b{section}\.(\w+)") | found(r"\bconfig\.(\w+)", under=f"watchdog/wiring/{section}.py")
    )


def test_a_key_that_can_change_is_taken_again() -> None:
    taken = _read_by(Parts.adopt) | found(r"\b(?:parts|merged)\.config\.(\w+\.\w+)", under="watchdog/daemon/")
    for pair in tuple(taken):
        section, _, name = pair.partition(".")
        if name in _properties(section):
            taken |= {f"{section}.{key}" for key in _read_by(_properties(section)[name].fget)}
    assert {key.replace("*", "model_dump") for key in reload.APPLIED} - taken == set()


def test_a_key_that_can_change_is_on_the_page() -> None:
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"These keys apply at once: all of `policy` and `guard`, ([^.]*(?:\.\w[^.]*)*)\.", page)
    # A secret that is not in a file is in the environment, which does not change.
    listed = {"policy.*", "guard.*", "http.token", "notify.secret", *re.findall(r"`(\w+\.\w+)`", sentence)}
    assert listed == reload.APPLIED


def _properties(section: str) -> dict[str, property]:
    kind = Config.model_fields[section].annotation if section in Config.model_fields else None
    return {name: value for name, value in vars(kind).items() if isinstance(value, property)} if kind else {}


def _read_by(function: Callable[..., Any] | None) -> set[str]:
    """The keys that a function reads, and the functions of the same package that it hands ``config`` to."""
    assert function is not None
    text = inspect.getsource(function)
    read = set(re.findall(r"\bconfig\.(\w+\.\w+)", text)) | set(re.findall(r"\bself\.(\w+)", text))
    for name in re.findall(r"(\w+)\(config\)", text):
        read |= _read_by(getattr(inspect.getmodule(function), name))
    return read
