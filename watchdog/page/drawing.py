"""What each template is given. Everything is at hand here: nothing is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final, assert_never

from watchdog.core import policy
from watchdog.core.model import Outcome, Status
from watchdog.insight.explanation import Explanation
from watchdog.page import views
from watchdog.page.language import Language
from watchdog.page.live import Live
from watchdog.page.problems import problems
from watchdog.page.rendering import Renderer, address, task_address
from watchdog.store.reports.glance import Glance, Lately
from watchdog.store.reports.history import Row
from watchdog.store.reports.paging import Choice, TaskPage

View = views.Home | views.Tasks | views.OneTask | views.History

REFRESH_SECONDS: Final = 10
"""How often a page asks for itself again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A page as it was drawn."""

    status: HTTPStatus
    body: bytes


def drawn(renderer: Renderer, view: View, found: Any, language: Language, common: Mapping[str, Any]) -> Answer:
    """Draw what was read for ``view``. ``common``: ``live``, ``is_still``, ``has_report``."""
    name: str
    values: dict[str, Any]
    match view:
        case views.Home():
            name, values = "home", _home(common["live"], *found)
        case views.Tasks():
            name, values = "tasks", _tasks(view, found)
        case views.History():
            name, values = "history", _history(view, *found)
        case views.OneTask():
            if isinstance(found, views.Missing):
                return _missing(renderer, view, found, language, common)
            name, values = "task", _task(found)
        case _:
            assert_never(view)
    again = {} if common["is_still"] else {"still": ""}
    values |= {"still_address": address(values.pop("path"), {**values.pop("query", {}), **again})}
    return Answer(HTTPStatus.OK, renderer.render(name, language, refresh=REFRESH_SECONDS, **common, **values))


def error_values(name: str, detail: str | None = None, values: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the template ``error`` is given; texts are ``error.NAME`` and ``error.NAME.text``."""
    return {"name": name, "detail": detail, "values": values or {}, "links": (), "above_links": None, "here": None}


def _home(live: Live, now: Glance, lately: Lately | None) -> dict[str, Any]:
    found = problems(live, now, lately)
    worst = found[0].level if found else "ok"
    return {
        "path": "/",
        "here": "home",
        "now": now.now,
        "glance": now,
        "upcoming": [(task, policy.reason(task)) for task in now.upcoming],
        "lately": lately,
        "problems": found,
        "level": worst,
        "headline": f"state.ok.{live.mode}" if worst == "ok" else f"state.{worst}",
        "outcomes": [] if lately is None else sorted(lately.outcomes.items(), key=lambda pair: -pair[1]),
    }


def _tasks(view: views.Tasks, page: TaskPage) -> dict[str, Any]:
    following = page.next and address("/tasks", view.query, after=views.write_mark(page.next))
    mark = None if view.after is None else views.write_mark(view.after)
    return {
        "path": "/tasks",
        "query": {**view.query, **({"after": mark} if mark else {})},
        "here": "tasks",
        "now": page.now,
        "view": view,
        "tasks": page.tasks,
        "choices": list(Choice),
        "next_address": following,
        "first_address": address("/tasks", view.query) if view.after is not None else None,
    }


def _history(view: views.History, now: datetime, rows: list[Row], before: int | None) -> dict[str, Any]:
    return {
        "path": "/history",
        "query": {**view.query, **({} if view.before is None else {"before": view.before})},
        "here": "history",
        "now": now,
        "view": view,
        "rows": rows,
        "outcomes": list(Outcome),
        "stretches": list(views.SINCE),
        "next_address": None if before is None else address("/history", view.query, before=before),
        "first_address": address("/history", view.query) if view.before is not None else None,
    }


def _task(found: Explanation) -> dict[str, Any]:
    story, task = found.story, found.story.task
    last = story.attempts[-1] if story.attempts else None
    return {
        "path": task_address(found.task_id),
        "here": "tasks",
        "now": story.now,
        "found": found,
        "task": task,
        "story": story,
        "room": task.room_id if task is not None else (last and last["room_id"]),
        "is_active": task is not None and task.status is Status.ACTIVE,
        "planned": found.schedule,
        "ending": found.ending,
        "attempts": story.attempts[: -views.ROWS_OF_A_TASK - 1 : -1],
        "events": story.events[: -views.ROWS_OF_A_TASK - 1 : -1],
        "outlook": None if task is None or found.decision is None else f"outlook.{found.decision.rule}",
        "grace": found.grace_seconds,
    }


def _missing(
    renderer: Renderer, view: views.OneTask, found: views.Missing, language: Language, common: Mapping[str, Any]
) -> Answer:
    values = error_values("no_task", values={"task": view.task_id})
    if found.similar:
        above = "error.is_room" if found.is_room else "error.similar"
        values |= {"links": found.similar, "above_links": above}
    return Answer(HTTPStatus.NOT_FOUND, renderer.render("error", language, **(dict(common) | values)))
