"""The page is complete by itself and harmless, whatever the rooms are called."""

import base64
import hashlib
import re
from dataclasses import replace

import pytest

from tests.report.examples import HOSTILE, NOTHING, SOME, Page
from watchdog import __version__
from watchdog.report.page import render
from watchdog.report.sections import ReturnCurve
from watchdog.report.texts import TEXTS, Language
from watchdog.store.reports.report import Findings

CURVE = ReturnCurve(250, [(5.0, 0.1, 0.05, 0.2), (30.0, 0.4, 0.3, 0.5)])
SECTIONS = ["outcomes", "lateness", "early", "savings", "returns", "window", "codes", "longest"]


@pytest.fixture(params=["en", "zh"])
def language(request: pytest.FixtureRequest) -> Language:
    found: Language = request.param
    return found


@pytest.mark.parametrize("found", [SOME, NOTHING], ids=["some", "nothing"])
def test_the_page_runs_nothing_and_loads_nothing(found: Findings, language: Language) -> None:
    text = render(found, language, CURVE)
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "use", "image", "a"} == set()
    for attribute in ("src", "href", "xlink:href", "srcset", "style", "action", "data", "background"):
        assert page.values(attribute) == []
    assert [name for _, attributes in page.elements for name in attributes if name.startswith("on")] == []
    assert re.findall(r"url\(|@import|https?:|//", text) == []
    assert page.texts["style"][0].count("prefers-color-scheme: dark") == 1


def test_the_page_permits_itself_its_own_style_only(language: Language) -> None:
    page = Page(render(SOME, language))
    (policy,) = [attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes]
    digest = base64.b64encode(hashlib.sha256(page.texts["style"][0].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_what_comes_from_outside_is_text(language: Language) -> None:
    text = render(SOME, language)
    shown = "<script>alert(1)</script>\"'&\ufffd[31m\ufffdevil\ufffd" + "😀" * 32
    # Kind, code, message, room and task, each shut off from what is beside it.
    assert Page(text).texts["bdi"].count(shown) == 5
    assert "<script" not in text
    assert not set(HOSTILE) & set("\x1b\u202e\x00") & set(text)


def test_every_section_has_its_plot_and_its_table(language: Language) -> None:
    page = Page(render(SOME, language))
    texts = TEXTS[language]
    assert page.values("lang") == [texts["language"]]
    assert page.values("id") == SECTIONS
    assert page.texts["h2"] == [texts[name] for name in SECTIONS]
    plots = [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"]
    assert plots == [texts[name] for name in SECTIONS if name != "longest"]
    assert len([tag for tag, _ in page.elements if tag == "table"]) == len(SECTIONS) + 1
    assert texts["nothing"] not in page.texts["p"]
    assert __version__ in page.texts["footer"][0]


def test_a_period_without_anything_says_so(language: Language) -> None:
    page = Page(render(NOTHING, language))
    assert page.values("id") == SECTIONS
    assert [tag for tag, _ in page.elements if tag in {"svg", "table"}] == []
    assert page.texts["p"].count(TEXTS[language]["nothing"]) == len(SECTIONS)


def test_the_curve_stands_after_the_returns_if_there_is_one(language: Language) -> None:
    page = Page(render(SOME, language, CURVE))
    assert page.values("id") == [*SECTIONS[:5], "curve", *SECTIONS[5:]]
    assert any("250" in text for text in page.texts["p"])
    assert {"30", "40.00%", "30.00%", "50.00%"} <= set(page.texts["td"])


def test_numbers_at_the_top(language: Language) -> None:
    found = replace(SOME, savings=SOME.savings[:1])
    assert Page(render(found, language)).texts["dd"] == ["30", "2", "3", "2", "25 min"]
