"""The sample of a report is what the program writes. After a change: make report-sample."""

from simulation.sample import PAGE, PICTURE, found
from tests.report.examples import Page
from watchdog.report.page import render


def words_of(text: str) -> list[str]:
    """What there is to read; places in a plot may differ with the version of a library."""
    page = Page(text)
    return [words for tag, found in page.texts.items() if tag != "style" for words in found]


def test_the_sample_is_current() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert words_of(text) == words_of(render(found(), "en")), "write it again: make report-sample"


def test_the_sample_shows_every_section_but_the_curve() -> None:
    page = Page(PAGE.read_text(encoding="utf-8"))
    assert len([tag for tag, _ in page.elements if tag == "svg"]) == 7
    assert "Nothing of this was recorded in the period." not in page.texts["p"]


def test_the_picture_is_a_picture() -> None:
    head = PICTURE.read_bytes()[:8]
    assert head == b"\x89PNG\r\n\x1a\n"
    assert PICTURE.stat().st_size < 300_000
