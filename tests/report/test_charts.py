"""Plots are drawings alone: no script, no style, no ids, the same bytes for the same figures."""

import sys
from xml.etree import ElementTree as ET

import pytest

from watchdog.errors import ConfigError
from watchdog.report import charts

HOSTILE = "<script>&\"'"
BARS = charts.bars("Stops", ("hour", "stops"), ["01", "02"], {"a": [1, 0], "b": [2, 3]})
LYING = charts.lying_bars("Codes", "number", [(HOSTILE, 7), ("0", 5)])
LINES = charts.lines("Curve", ("s", "share"), {"it": [(0, 0), (5, 0.5)], "low": [(0, 0), (5, 0.4)]})


@pytest.mark.parametrize("svg", [BARS, LYING, LINES], ids=["bars", "lying", "lines"])
def test_a_plot_is_a_drawing_and_nothing_else(svg: str) -> None:
    root = ET.fromstring(svg)  # noqa: S314 - our own text
    assert root.tag == "svg"
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert {element.tag for element in root.iter()} <= {"svg", "g", "rect", "path", "text", "circle"}
    names = {name for element in root.iter() for name in element.attrib}
    assert names & {"id", "style", "href", "xmlns", "onclick"} == set()
    assert "http" not in svg
    assert "url(" not in svg


def test_the_same_figures_give_the_same_bytes() -> None:
    assert charts.bars("Stops", ("hour", "stops"), ["01", "02"], {"a": [1, 0], "b": [2, 3]}) == BARS


def test_each_value_is_a_bar_in_its_colour() -> None:
    root = ET.fromstring(BARS)  # noqa: S314 - our own text
    drawn = {
        group.get("class"): len(group.findall(".//rect"))
        for group in root.iter("g")
        if "series" in (group.get("class") or "") and group.findall(".//rect")
    }
    # 0 is no bar.
    assert drawn == {"series serie-0 color-0": 1, "series serie-1 color-1": 2}
    assert [text.text for text in root.iter("text") if text.text in {"a", "b"}] == ["a", "b"]


def test_texts_are_escaped() -> None:
    assert "<script>" not in LYING
    assert HOSTILE in [text.text for text in ET.fromstring(LYING).iter("text")]  # noqa: S314 - our own text


def test_chinese_labels_are_texts() -> None:
    svg = charts.bars("停止", ("小时", "数量"), ["一", "二"], {"已停止": [1, 2], "错过": [1, 1]})
    assert {"小时", "数量", "一", "二", "已停止", "错过"} <= {text.text for text in ET.fromstring(svg).iter("text")}  # noqa: S314 - our own text


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygal", None)
    with pytest.raises(ConfigError, match=r"not installed; install it with: pip install 'zego-watchdog\[report\]'"):
        charts.bars("Stops", ("hour", "stops"), ["01"], {"": [1]})
