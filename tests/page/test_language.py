"""The two languages: the same keys, the same places for values, and which one a browser gets."""

import re
import string
from datetime import timedelta
from pathlib import Path

import pytest

from simulation.virtual import START
from watchdog.core.model import Mode, Outcome, Reason, Source, Status, Verify
from watchdog.core.policy import Rule, Verdict
from watchdog.page import chinese, english
from watchdog.page.language import CHINESE, ENGLISH, choose
from watchdog.store.reports.paging import Choice

TEMPLATES = Path(english.__file__).parent / "templates"


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_both_have_the_same_keys_and_places() -> None:
    assert english.TEXTS.keys() == chinese.TEXTS.keys()
    assert {key for key in english.TEXTS if places(english.TEXTS[key]) != places(chinese.TEXTS[key])} == set()
    assert all(text for texts in (english.TEXTS, chinese.TEXTS) for text in texts.values())


def test_what_is_chinese_is_not_english() -> None:
    same = {key for key, text in english.TEXTS.items() if text == chinese.TEXTS[key]}
    # Names that both have.
    assert same == {"app", "before_seconds", "col.app", "col.http", "col.request_id", "col.webhook"}


def test_the_model_has_a_text_for_each_value() -> None:
    kinds = {"rule": Rule, "outlook": Rule, "verdict": Verdict, "outcome": Outcome, "reason": Reason}
    kinds |= {"reporter": Source, "status": Status, "mode": Mode, "stops": Mode, "at_due": Verify, "choice": Choice}
    wanted = {f"{name}.{value}" for name, kind in kinds.items() for value in kind}
    assert wanted - english.TEXTS.keys() == set()


def test_every_key_of_a_template_is_there_and_every_text_is_used() -> None:
    files = [*TEMPLATES.glob("*.html"), *TEMPLATES.parent.glob("*.py")]
    sources = "".join(path.read_text(encoding="utf-8") for path in files)
    named = set(re.findall(r"""\btext\(\s*["']([\w.]+)["']""", sources))
    assert named - {key for key in named if key.endswith(".")} - english.TEXTS.keys() == set()
    heads = {name for names in re.findall(r"part\.head\(([^)]*)\)", sources) for name in re.findall(r'"(\w+)"', names)}
    cells = set(re.findall(r'part\.cell\("(\w+)"', sources))
    assert heads == cells
    assert {f"col.{name}" for name in heads} - english.TEXTS.keys() == set()


@pytest.mark.parametrize(
    ("header", "tag"),
    [
        ("", "en"),
        ("*", "en"),
        ("fr-FR,fr;q=0.9", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        ("zh-TW", "zh-CN"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"),
        ("en;q=0.5, zh;q=0.9", "zh-CN"),
        ("ZH", "zh-CN"),
        ("zh;q=0", "en"),
        ("zh;q=x", "en"),
        ("zh;q=nan", "en"),
        ("zh;level=1", "zh-CN"),
        ("fr," * 10_000 + "zh", "en"),
    ],
)
def test_a_browser_gets_what_it_likes_best(header: str, tag: str) -> None:
    assert choose(header).tag == tag


def test_durations_and_times() -> None:
    later = START + timedelta(seconds=125)
    assert [ENGLISH.since(START, later), CHINESE.since(START, later)] == ["2m 5s ago", "2 分 5 秒前"]
    assert [ENGLISH.until(later, START), CHINESE.until(later, START)] == ["in 2m 5s", "2 分 5 秒后"]
    assert [ENGLISH.until(START, later), CHINESE.until(START, later)] == ["2m 5s overdue", "已逾期 2 分 5 秒"]
    assert ENGLISH.since(later, START) == "in 2m 5s"
    assert CHINESE.length(90_061.0) == "1 天 1 小时"
    assert ENGLISH.text("problem.blocked", apps="\x1b[1m7") == "ZEGO refuses requests of these AppIds: \ufffd[1m7."
