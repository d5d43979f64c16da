"""The sample of a report is what the program writes. After a change of the page: make report-sample."""

from simulation.sample import FOUND, PAGE, PICTURE, as_json, from_json
from tests.report.examples import Page
from watchdog.report.texts import TEXTS


def words_of(text: str) -> list[str]:
    """What there is to read; places in a plot may differ with the version of a library."""
    page = Page(text)
    return [words for tag, found in page.texts.items() if tag != "style" for words in found]


def test_the_sample_is_current() -> None:
    sample = from_json(FOUND.read_text(encoding="utf-8"))
    text = PAGE.read_text(encoding="utf-8")
    assert words_of(text) == words_of(sample.page()), "draw it again: make report-sample"


def test_what_was_found_survives_its_file() -> None:
    text = FOUND.read_text(encoding="utf-8")
    assert as_json(from_json(text)) == text


def test_the_sample_has_something_to_show() -> None:
    text = PAGE.read_text(encoding="utf-8")
    page = Page(text)
    # Every section but the last one, a list of rooms, has a plot.
    ids = ["outcomes", "lateness", "early", "savings", "returns", "curve", "window", "codes"]
    assert [tag for tag, _ in page.elements].count("svg") == len(ids)
    assert {*ids, "longest"} <= set(page.values("id"))
    assert TEXTS["en"]["nothing"] not in text
    assert len(text) < 400_000


def test_the_picture_is_a_small_png() -> None:
    assert PICTURE.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert PICTURE.stat().st_size < 300_000
