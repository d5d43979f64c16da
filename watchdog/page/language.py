"""The languages of the page: which one a browser wants, its texts, and how it writes durations and times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from watchdog.insight import words
from watchdog.insight.legible import legible
from watchdog.page import chinese, english


@dataclass(frozen=True, slots=True)
class Language:
    """``tag`` is its name in HTML."""

    tag: str
    texts: Mapping[str, str]
    units: Sequence[str]

    def text(self, key: str, **values: object) -> str:
        """Return a text with its values filled in; those from outside lose their control characters."""
        return self.texts[key].format(
            **{name: legible(value) if isinstance(value, str) else value for name, value in values.items()}
        )

    def known(self, key: str, otherwise: str) -> str:
        """Return a text of ours; ``otherwise`` if there is none, for what is stored in words."""
        return self.texts.get(key, otherwise)

    def length(self, seconds: float) -> str:
        return words.length(seconds, self.units)

    def since(self, moment: datetime, now: datetime) -> str:
        seconds = (now - moment).total_seconds()
        key = "until" if seconds < 0 else "since"
        return self.text(key, length=self.length(abs(seconds)))

    def until(self, moment: datetime, now: datetime) -> str:
        seconds = (moment - now).total_seconds()
        key = "until" if seconds > 0 else "overdue"
        return self.text(key, length=self.length(abs(seconds)))

    def tools(self) -> Mapping[str, Any]:
        """Return what the templates use of it."""
        names = ("text", "known", "length", "since", "until")
        return {"language": self, "stamp": stamp, **{name: getattr(self, name) for name in names}}


def stamp(moment: datetime) -> str:
    """``2026-08-21 12:03:45``: UTC, in whole seconds."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


ENGLISH: Final = Language("en", english.TEXTS, english.UNITS)
CHINESE: Final = Language("zh-CN", chinese.TEXTS, chinese.UNITS)
_BY_PREFIX: Final = {"en": ENGLISH, "zh": CHINESE}


def choose(accept: str) -> Language:
    """Return the language that an Accept-Language header likes best of those that we have; English without one."""
    best, best_quality = ENGLISH, 0.0
    for one in accept.split(",")[:20]:
        name, _, parameter = one.partition(";")
        language = _BY_PREFIX.get(name.strip().lower().partition("-")[0])
        quality = _quality(parameter)
        if language is not None and quality > best_quality:
            best, best_quality = language, quality
    return best


def _quality(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if not name:
        return 1.0
    try:
        return min(float(value), 1.0) if name.strip().lower() == "q" else 1.0
    except ValueError:
        return 0.0
