"""Turns what was read into HTML. Jinja2 escapes every value; what comes from outside also loses control characters."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import jinja2

from watchdog.core.model import Outcome, Status
from watchdog.insight.legible import legible
from watchdog.page.language import Language

_FOLDER: Final = Path(__file__).parent / "templates"
_DOTS: Final = {".", ".."}

_TONE: Final[dict[str, str]] = {
    **dict.fromkeys((Outcome.STOPPED, Outcome.GONE, Outcome.STOPPED_EARLIER), "good"),
    **dict.fromkeys((Outcome.RETRY, Outcome.UNKNOWN, Outcome.AUTO_STOPPED), "warn"),
    **dict.fromkeys((Outcome.REJECTED, Outcome.BLOCKED, Status.FAILED), "bad"),
}
"""The colour of outcomes and statuses; the others have none."""


def task_address(task_id: str) -> str:
    """Return the link to a task, whatever characters its id has."""
    # A browser takes these two for folders, however they are written.
    return f"/find?{urlencode({'id': task_id})}" if task_id in _DOTS else f"/tasks/{quote(task_id, safe='')}"


def address(path: str, values: Mapping[str, object] | None = None, **more: object) -> str:
    """Return a link with values, those that are None left out."""
    chosen = {name: value for name, value in {**(values or {}), **more}.items() if value is not None}
    return f"{path}?{urlencode(chosen)}" if chosen else path


def iso(moment: datetime) -> str:
    """The time as HTML's ``datetime`` has it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@cache
def _style() -> str:
    return (_FOLDER / "style.css").read_text(encoding="utf-8")


@cache
def _templates() -> Mapping[str, jinja2.Template]:
    """All templates by name, compiled."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    templates.filters |= {"shown": legible, "iso": iso}
    templates.globals |= {
        "style": _style(),
        "task_address": task_address,
        "address": address,
        "tone": lambda word: _TONE.get(word, ""),
    }
    return {path.stem: templates.get_template(path.name) for path in _FOLDER.glob("*.html")}


class Renderer:
    """All templates, read once for the process. Any thread may use it."""

    def __init__(self) -> None:
        self.style = _style()
        self._templates = _templates()

    def render(self, template: str, language: Language, /, **values: Any) -> bytes:
        """Return the template's page."""
        return self._templates[template].render(**language.tools(), **values).encode()
