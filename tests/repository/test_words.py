"""Plain words: phrases that must not come back into what users and colleagues read."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = ("watchdog", "docs", "systemd", "migrations", "monitoring", "README.md", "README.zh-CN.md", "config.yaml")
SUFFIXES = {".py", ".md", ".yaml", ".sql", ".service", ".socket", ".conf"}

INSTEAD = {
    "whoever": "the daemon, the caller, the client …",
    "cease to be": "remove",
    "nobody's": "no evidence, no owner …",
    "of whom": "a new sentence",
    "lest": "so that … not",
    "is no word": "no hint, no evidence",
    "absence of a word": "missing evidence",
    "belongs into": "belongs to; add … to",
    "happens to next": "next event first",
    "the wrong ones are": "wrong stops",
    "as it was stored, is now": "if missing, null or unchanged, the current time is used",
    "nobody else's": "because only root can read it",
    "be had again": "be recreated",
    "behind the commit": "after the commit",
    "half of the facts": "callbacks of one room are serialised",
    "neither would": "callbacks of one room are serialised",
    "sent away": "timed out",
    "it never calls itself": "it only sends …",
    "everything there is": "all",
    "as it were": "leave it out",
    "needs no saying": "leave it out",
    "忙等待": "忙超时 (busy_timeout)",
    "为数不多的并发名额": "有限的并发名额",
    "检查一切可以检查的内容": "全面检查配置与环境",
    "自己的表旁边建表": "在您的数据库中建表",
    "构建包含一切的": "构建自带依赖的 Debian 软件包",
    "忘记写入人数也损失不大": "即使忘记更新人数，影响也不大",
}


def phrases_in(text: str) -> Iterator[str]:
    """Yield the phrases that stand in a text, over line ends and comment marks as well."""
    flowing = re.sub(r"\s*\n\s*(?:#|--|>)?\s*", " ", text).lower()
    for phrase in INSTEAD:
        if re.search(rf"(?<![a-z]){re.escape(phrase)}(?![a-z])", flowing):
            yield phrase


def files() -> Iterator[Path]:
    for place in PLACES:
        found = [ROOT / place] if (ROOT / place).is_file() else (ROOT / place).rglob("*")
        yield from (path for path in found if path.suffix in SUFFIXES)


def test_plain_words_are_used() -> None:
    found = {path.relative_to(ROOT).as_posix(): list(phrases_in(path.read_text(encoding="utf-8"))) for path in files()}
    assert len(found) > 100
    assert {name: phrases for name, phrases in found.items() if phrases} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Whoever asks", ["whoever"]),
        ("# nothing, lest\n    # it breaks", ["lest"]),
        ("a row, half of\n-- the facts", ["half of the facts"]),
        ("the latest, celestial", []),
        ("可自定义忙等待时间", ["忙等待"]),
    ],
)
def test_the_search(text: str, found: list[str]) -> None:
    assert list(phrases_in(text)) == found
