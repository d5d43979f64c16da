"""The page: a template, one style, and what the sections say."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from watchdog import __version__
from watchdog.report.sections import Figure, ReturnCurve, Section, figures, sections
from watchdog.report.texts import TEXTS, Language, moment
from watchdog.store.reports.report import Findings

_FOLDER: Final = Path(__file__).parent
_STYLE: Final = "style.css"
_TEMPLATE: Final = "page.html.j2"


def render(found: Findings, language: Language, curve: ReturnCurve | None = None) -> str:
    """Return the report. Raises ConfigError without the library that draws the plots."""
    texts = TEXTS[language]
    return document(
        texts["language"],
        texts["title"],
        texts["period"].format(since=moment(found.since), now=moment(found.now)),
        figures(found, texts),
        sections(found, texts, curve),
        texts["footer"].format(version=__version__),
    )


def document(
    language: str, title: str, period: str, numbers: Sequence[Figure], parts: Sequence[Section], footer: str
) -> str:
    """Return a whole page; ``language`` is a tag of HTML.

    The page permits itself its own style and nothing else, so even a mistake in escaping could run or load nothing.
    """
    style = (_FOLDER / _STYLE).read_text(encoding="utf-8")
    environment = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(_TEMPLATE).render(
        language=language,
        title=title,
        period=period,
        figures=numbers,
        sections=parts,
        footer=footer,
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
    )
