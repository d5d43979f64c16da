"""The page: a template, one style, and what the sections say."""

import base64
import hashlib
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from watchdog import __version__
from watchdog.report.sections import ReturnCurve, figures, sections
from watchdog.report.texts import TEXTS, Language, moment
from watchdog.store.reports.report import Findings

_FOLDER: Final = Path(__file__).parent
_STYLE: Final = "style.css"
_TEMPLATE: Final = "page.html.j2"


def render(found: Findings, language: Language, curve: ReturnCurve | None = None) -> str:
    """Return the whole page. Raises ConfigError without the library that draws the plots.

    The page permits itself its own style and nothing else, so even a mistake in escaping could run or load nothing.
    """
    texts = TEXTS[language]
    style = (_FOLDER / _STYLE).read_text(encoding="utf-8")
    environment = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(_TEMPLATE).render(
        language=texts["language"],
        title=texts["title"],
        period=texts["period"].format(since=moment(found.since), now=moment(found.now)),
        figures=figures(found, texts),
        sections=sections(found, texts, curve),
        footer=texts["footer"].format(version=__version__),
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
    )
