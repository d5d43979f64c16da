"""Links to tasks, and what the templates do with what comes from outside."""

from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from watchdog.page.drawing import error_values
from watchdog.page.language import ENGLISH
from watchdog.page.rendering import Renderer, address, task_address


@pytest.mark.parametrize("task_id", ["1901", "a/b", "a?b", "a#b", "100%", "a b", "\u202e", "\N{PILE OF POO}", "..."])
def test_a_link_has_the_id_as_one_part(task_id: str) -> None:
    parts = urlsplit(task_address(task_id))
    assert unquote(parts.path.removeprefix("/tasks/")) == task_id
    assert parts.path.count("/") == 2
    assert (parts.query, parts.fragment) == ("", "")


@pytest.mark.parametrize("task_id", [".", ".."])
def test_a_browser_would_take_these_for_folders(task_id: str) -> None:
    parts = urlsplit(task_address(task_id))
    assert (parts.path, parse_qs(parts.query)) == ("/find", {"id": [task_id]})


def test_an_address_has_what_is_given() -> None:
    assert address("/history", {"room": "a&b=c"}, before=7, since=None) == "/history?room=a%26b%3Dc&before=7"
    assert address("/history") == "/history"


def test_values_are_escaped() -> None:
    page = Renderer().render("error", ENGLISH, **error_values("away", "<img src=x onerror=alert(1)>\x1b[2J")).decode()
    assert "&lt;img src=x onerror=alert(1)&gt;\ufffd[2J" in page
