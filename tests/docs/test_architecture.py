"""docs/architecture.md and CONTRIBUTING.md name what exists; the drawings of states come from the code's tables.

``python -m tests.docs.test_architecture`` writes the drawings into the page.
"""

import ast
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from watchdog.core.model import Outcome, Status
from watchdog.core.outcomes import TASK_BECOMES, ReplyClass, conclude

ROOT = Path(__file__).parents[2]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ARCHITECTURE, ROOT / "CONTRIBUTING.md")}
WORDS_A_MINUTE = 230


def task_states() -> str:
    """Draw the statuses of a task as Mermaid: from TASK_BECOMES, and what the application may set."""
    active = Status.ACTIVE
    arrows: list[tuple[str, str, str]] = [("[*]", active, "INSERT")]
    for status in (active, *(status for status in Status if status is not active)):
        outcomes = [one for one, after in TASK_BECOMES.items() if (after or active) is status]
        arrows.append((active, status, ", ".join(outcomes) or "the application's UPDATE"))
    arrows += [(status, "[*]", "") for status in Status if status is not active]
    return mermaid(arrow(*each) for each in arrows)


def attempt_states() -> str:
    """Draw the outcomes of an attempt as Mermaid: those that ``conclude`` can give, and the others."""
    classes: dict[Outcome, list[str]] = {}
    yes_no = (False, True)
    for reply_class, unknown, late, exhausted in product(ReplyClass, yes_no, yes_no, yes_no):
        outcome = conclude(reply_class, earlier_unknown=unknown, at_or_after_auto_stop=late, exhausted=exhausted)
        if reply_class not in classes.setdefault(outcome, []):
            classes[outcome].append(reply_class)
    unsent = [one for one in Outcome if one not in {*classes, Outcome.SENT, Outcome.UNKNOWN}]
    answered = [f"    {one}: {one} ({', '.join(classes[one])})" for one in Outcome if one in classes]
    return mermaid(
        [
            arrow("[*]", Outcome.SENT, "attempt committed"),
            arrow(Outcome.SENT, "answered", "ZEGO's answer, or certainly not sent"),
            arrow(Outcome.SENT, Outcome.UNKNOWN, "no usable answer, or the lease ended"),
            arrow(Outcome.SENT, Outcome.WITHHELD, "lease too short, or people seen; not sent"),
            arrow(Outcome.UNKNOWN, "answered", "its own answer is found later, once"),
            *(arrow("[*]", one, "no request") for one in unsent),
            "state answered {",
            *answered,
            "}",
        ]
    )


def arrow(before: str, after: str, label: str) -> str:
    return f"{before} --> {after}" + (f": {label}" if label else "")


def mermaid(lines: Iterator[str] | list[str]) -> str:
    return "\n".join(["```mermaid", "stateDiagram-v2", *(f"    {line}" for line in lines), "```"])


DRAWINGS = {"task": task_states(), "attempt": attempt_states()}


def with_drawings(page: str) -> str:
    for name, drawing in DRAWINGS.items():
        before, begin, rest = page.partition(f"<!-- {name}: begin -->\n")
        _, end, after = rest.partition(f"<!-- {name}: end -->")
        assert end, f"docs/architecture.md has no place for the drawing {name}"
        page = f"{before}{begin}{drawing}\n{end}{after}"
    return page


def test_the_drawings_are_current() -> None:
    assert with_drawings(PAGES["architecture.md"]) == PAGES["architecture.md"]


def test_every_status_and_outcome_is_drawn() -> None:
    assert all(f"> {status}" in DRAWINGS["task"] for status in Status)
    assert all(f"> {one}" in DRAWINGS["attempt"] or f" {one}: {one} (" in DRAWINGS["attempt"] for one in Outcome)


def exists(path: str) -> bool:
    return any((folder / path).exists() for folder in (ROOT, ROOT / "watchdog", ROOT / "docs"))


@pytest.mark.parametrize("name", PAGES)
def test_every_path_exists(name: str) -> None:
    page = PAGES[name]
    quoted = {path for path in re.findall(r"`([\w./-]+)`", page) if re.search(r"/|\.(py|md|toml|yaml|sql|json)$", path)}
    linked = {path.partition("#")[0].removeprefix("../") for path in re.findall(r"\]\(([^)]+)\)", page)}
    assert len(quoted) > 15
    assert {path for path in quoted | linked if not exists(path)} == set()


def test_the_tree_is_the_packages() -> None:
    (tree,) = re.findall(r"^```text\nwatchdog/\n(.*?)^```", PAGES["architecture.md"], re.MULTILINE | re.DOTALL)
    names = {line.split()[0].rstrip("/") for line in tree.splitlines() if line.startswith("  ")}
    package = ROOT / "watchdog"
    there = {path.name for path in package.iterdir() if (path / "__init__.py").exists() or path.suffix == ".py"}
    there |= {path.parent.name for path in (package / "store").glob("*/__init__.py")}
    assert names == there - {"__init__.py", "__main__.py", "tables.py"}


def defined(path: Path) -> set[str]:
    """Return the functions and classes of a module, and ``Class.method``."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            inner = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            found |= {f"{node.name}.{one.name}" for one in inner}
    return found


def test_every_function_that_is_named_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)` `([\w.]+)`", PAGES["architecture.md"])
    assert len(named) > 25
    missing = set()
    for module, name in named:
        path = ROOT / "watchdog" / module
        if not path.exists() or name not in defined(path):
            missing.add(f"{module} {name}")
    assert missing == set()


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^\.PHONY: (\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {target for page in PAGES.values() for target in re.findall(r"`make ([a-z-]+)", page)}
    assert {"check", "test"} <= named
    assert named - targets == set()


def test_both_pages_are_read_in_ten_minutes() -> None:
    minutes = {
        name: len(re.sub(r"^```mermaid.*?^```", "", page, flags=re.MULTILINE | re.DOTALL).split()) / WORDS_A_MINUTE
        for name, page in PAGES.items()
    }
    assert minutes["architecture.md"] < 6
    assert minutes["CONTRIBUTING.md"] < 4


if __name__ == "__main__":
    ARCHITECTURE.write_text(with_drawings(PAGES["architecture.md"]), encoding="utf-8")
