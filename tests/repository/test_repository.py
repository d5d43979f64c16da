"""What no linter checks: the repository is clean, and its parts agree."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import watchdog

ROOT = Path(__file__).parents[2]
# Spelled in two halves, so that this file passes its own test.
FOREIGN = {
    "a directory of somebody's machine": ["/wo" + "rk/", "/ro" + "ot/"],
    "a package registry": ["py" + "pi", "python" + "hosted", "npm" + "js"],
    "a writing tool": ["clau" + "de", "anthro" + "pic", "chat" + "gpt", "co" + "pilot"],
}


def files() -> list[Path]:
    """Return every file that is, or would be, under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    return [ROOT / name for name in sorted(set(listed)) if name and (ROOT / name).is_file()]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def pyproject() -> dict[str, object]:
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    assert isinstance(project, dict)
    return project


def test_there_are_files_to_look_at() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in files()}
    assert {"pyproject.toml", "watchdog/core/model.py", "tests/repository/test_repository.py"} <= names


@pytest.mark.parametrize("what", FOREIGN)
def test_nothing_foreign_is_mentioned(what: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {what}: {word}"
        for path in files()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        for word in FOREIGN[what]
        if word in line.lower()
    ]
    assert found == []


SILENCED = re.compile(r"#\s*(?:noqa|type:\s*ignore|mypy:\s*ignore)")
SILENCED_WITH_REASON = re.compile(r"# (?:noqa: [A-Z]+\d+(?:, [A-Z]+\d+)*|type: ignore\[[a-z, -]+\])(?: +# | - )\S")


def test_a_silenced_linter_has_a_rule_and_a_reason() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        if path.suffix == ".py" and path != Path(__file__)
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if SILENCED.search(line) and not SILENCED_WITH_REASON.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "passes"),
    [
        ("x = 1  # noqa", False),
        ("x = 1  # noqa: E501", False),
        ("x = 1  # noqa: E501  # the vendor's own words", True),
        ("x = 1  # noqa: E501, S101  # the vendor's own words", True),
        ("x = 1  # noqa: E501 - the vendor's own words", True),
        ("x = 1  # type: ignore", False),
        ("x = 1  # type: ignore[attr-defined]", False),
        ("x = 1  # type: ignore[attr-defined]  # the library has no stubs", True),
    ],
)
def test_the_rule_for_silencing(line: str, *, passes: bool) -> None:
    assert SILENCED.search(line)
    assert bool(SILENCED_WITH_REASON.search(line)) is passes


def test_the_licence_is_what_the_metadata_says() -> None:
    assert pyproject()["license"] == "MIT"
    assert text_of(ROOT / "LICENSE").startswith("MIT License\n")


def test_the_changelog_begins_with_this_version_or_what_comes_after_it() -> None:
    headings = re.findall(r"^## \[([^]]+)\]", text_of(ROOT / "CHANGELOG.md"), flags=re.MULTILINE)
    released = headings[1:] if headings[0] == "Unreleased" else headings
    assert released[0] == watchdog.__version__
    assert "Unreleased" not in released


def test_constraints_pin_every_dependency_and_name_no_place_to_get_it_from() -> None:
    lines = [line for line in text_of(ROOT / "constraints.txt").splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.+!]+", line)] == []
    pinned = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines}
    project = pyproject()
    runtime, extras = project["dependencies"], project["optional-dependencies"]
    assert isinstance(runtime, list)
    assert isinstance(extras, dict)
    wanted = {
        re.split(r"[<>=\[;]", requirement)[0].strip().lower()
        for requirement in [*runtime, *(requirement for extra in extras.values() for requirement in extra)]
    }
    assert wanted - pinned == {"zego-watchdog"}


def test_scripts_can_be_run() -> None:
    scripts = [path for path in files() if text_of(path).startswith("#!")]
    assert ROOT / ".ci/run" in scripts
    assert [path for path in scripts if not os.access(path, os.X_OK)] == []


def test_the_makefile_describes_every_target_people_type() -> None:
    makefile = text_of(ROOT / "Makefile")
    targets = re.findall(r"^\.PHONY: (\S+)", makefile, flags=re.MULTILINE)
    assert {"demo", "test", "check", "bench"} <= set(targets)
    listed = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.findall(r"^  make (\S+)", listed.stdout, flags=re.MULTILINE) == targets
