"""Both languages say the same things, and numbers are readable."""

import re
from pathlib import Path
from string import Formatter

import pytest

from watchdog.report import sections
from watchdog.report.texts import TEXTS, length, percent


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_both_languages_have_the_same_texts_with_the_same_fields() -> None:
    english, chinese = TEXTS["en"], TEXTS["zh"]
    assert english.keys() == chinese.keys()
    assert [name for name in english if fields(english[name]) != fields(chinese[name])] == []


def test_chinese_is_chinese() -> None:
    same = {name for name, text in TEXTS["zh"].items() if not re.search(r"[\u4e00-\u9fff]", text)}
    assert same == {"language", "app"}


def test_every_text_is_used() -> None:
    folder = Path(sections.__file__).parent
    sources = "".join(path.read_text(encoding="utf-8") for path in folder.glob("[!t]*.py"))
    named = {name for name in TEXTS["en"] if f'"{name}"' in sources}
    built = {name for name in TEXTS["en"] if name.endswith(("_text", "_note"))}
    assert set(TEXTS["en"]) - named - built == set()


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 ms"),
        (2.4, "2 ms"),
        (999, "999 ms"),
        (2500, "2.5 s"),
        (45_000, "45 s"),
        (59_990, "60 s"),
        (125_000, "2 min 5 s"),
        (3_600_000, "1 h"),
        (11_045_000, "3 h 4 min"),
        (183_600_000, "2 d 3 h"),
    ],
)
def test_lengths_have_two_units_at_most(milliseconds: float, text: str) -> None:
    assert length(milliseconds) == text


def test_a_share_of_nothing_is_a_dash() -> None:
    assert (percent(1, 8), percent(0, 0)) == ("12.5%", "–")
