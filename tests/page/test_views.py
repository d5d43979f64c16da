"""Marks in addresses: what is written is read again, and nothing else is."""

import base64
import json
from datetime import timedelta

import pytest

from simulation.virtual import START
from watchdog.page.views import Unreadable, read_mark, write_mark
from watchdog.store.reports.paging import Mark


@pytest.mark.parametrize(
    "mark",
    [
        Mark(0, START + timedelta(microseconds=123_457), "1901"),
        Mark(1, START, "a/b?c#\N{PILE OF POO}"),
        Mark(2, "room \u202e", "t"),
    ],
)
def test_a_mark_comes_back(mark: Mark) -> None:
    written = write_mark(mark)
    assert written.replace("-", "").replace("_", "").isalnum()
    assert read_mark(written) == mark


@pytest.mark.parametrize(
    "value",
    [
        *(None, [], [1], [0, 1.0, "t", 4], ["0", 1.0, "t"], [0, None, "t"], [0, 1.0, 7], [0, 1e300, "t"]),
        *([0, "r\0", "t"], [2, "\ud800", "t"]),
    ],
)
def test_another_value_is_refused(value: object) -> None:
    with pytest.raises(Unreadable):
        read_mark(base64.urlsafe_b64encode(json.dumps(value).encode()).decode())


@pytest.mark.parametrize("text", ["x", "é", "=", "bnVsbA", "W" * 100_000, "[" * 5])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        read_mark(text)
