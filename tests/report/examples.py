"""Findings for the tests of the report, and a reader of its pages."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

from watchdog.core.model import Outcome
from watchdog.store.reports.report import CodeCount, EmptyRoom, Findings, Savings

NOW = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202eevil\x00" + "😀" * 32

NOTHING = Findings(
    now=NOW,
    since=NOW - timedelta(days=7),
    by_day=False,
    outcomes={},
    late={},
    early={},
    windows={},
    windows_off={},
    returns={},
    codes=[],
    other_codes=0,
    savings=[],
    longest=[],
)
SOME = replace(
    NOTHING,
    outcomes={
        ("2026-03-01 23", Outcome.STOPPED): 20,
        ("2026-03-02 00", Outcome.STOPPED): 9,
        ("2026-03-02 00", Outcome.STOPPED_EARLIER): 1,
        ("2026-03-02 00", Outcome.AUTO_STOPPED): 2,
        ("2026-03-02 01", Outcome.SPARED): 3,
    },
    late={0: 10, 3: 19, 250: 1},
    early={-1: 1, 60_000: 14, 75_000: 15},
    windows={121_000: 1, 150_000: 1},
    windows_off={-1000: 1, 29_000: 1},
    returns={12_000: 1, 60_000: 1, 300_000: 1},
    codes=[CodeCount("0", 29, "Success"), CodeCount(HOSTILE, 2, HOSTILE)],
    other_codes=4,
    savings=[
        Savings("2026-03-01", "asr", 12345, 20, 1_500_000, 0, 0, 0, 1, 1),
        Savings("2026-03-02", HOSTILE, None, 10, 585_000, 2, 2, 3, 1, 2),
    ],
    longest=[
        EmptyRoom(HOSTILE, HOSTILE, 12345, Outcome.STOPPED, NOW - timedelta(hours=2), 300_000),
        EmptyRoom("lobby", "17", None, None, NOW - timedelta(seconds=41), 41_000),
    ],
)


class Page(HTMLParser):
    """Reads a page strictly: what is opened is closed, in order. Collects elements, ids and the text of each tag."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], "these are not closed"

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        assert "svg" in self._open, f"<{tag}/> is for SVG"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)

    def values(self, attribute: str) -> list[Any]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]
