"""Where a program is missing: its tests are skipped with one line, but in CI nothing begins, and nothing is skipped."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import pytest_runtest_makereport
from tests.support import tools

ROOT = Path(__file__).parents[2]


def test_one_line_says_what_was_skipped_and_what_to_install() -> None:
    reasons = [
        "Skipped: needs nginx: apt install nginx-light",
        "Skipped: needs cc: apt install gcc libc6-dev",
        "Skipped: needs nginx: apt install nginx-light",
        "Skipped: needs root",
    ]
    assert tools.skipped(reasons) == (
        "4 tests were skipped: 1 needs cc, 2 needs nginx, 1 needs root."
        " To run them: apt install gcc libc6-dev nginx-light"
    )
    assert tools.skipped(["Skipped: needs root"]) == "1 tests were skipped: 1 needs root"
    assert tools.skipped([]) is None


def test_a_mark_names_the_first_program_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "curl").touch(mode=0o755)
    monkeypatch.setattr(tools, "_PATH", str(tmp_path))
    assert tools.needs("curl").args == (False,)
    mark = tools.needs("curl", "fuser", "nginx")
    assert (mark.args, mark.kwargs) == ((True,), {"reason": "needs fuser: apt install psmisc"})
    with pytest.raises(pytest.skip.Exception, match="needs fuser: apt install psmisc"):
        tools.program("fuser")
    assert "curl" not in tools.missing()


def test_ci_does_not_begin_without_them() -> None:
    began = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "tests/repository"],
        cwd=ROOT,
        env=os.environ | {"CI": "true", "PATH": str(Path(sys.executable).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert began.returncode == pytest.ExitCode.USAGE_ERROR, began.stdout
    assert "CI lacks cc, chromium, curl," in began.stderr + began.stdout
    assert "passed" not in began.stdout


@pytest.mark.parametrize(("ci", "outcome"), [("true", "failed"), ("", "skipped")])
def test_a_test_that_is_skipped_has_failed_in_ci(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: str
) -> None:
    monkeypatch.setenv("CI", ci)
    skipped = pytest.TestReport("here", ("here", 1, ""), {}, "skipped", ("here", 1, "Skipped: needs curl"), "call")
    hook = pytest_runtest_makereport(request.node, pytest.CallInfo.from_call(lambda: None, "call"))
    next(hook)
    with pytest.raises(StopIteration) as ended:
        hook.send(skipped)
    assert ended.value.value.outcome == outcome


def test_ci_installs_them() -> None:
    script = (ROOT / ".ci/run").read_text()
    # It needs no server of Prometheus, and is Debian.
    packages = {word for line in tools.PACKAGES.values() for word in line.split()} - {"dpkg", "prometheus"}
    assert {name for name in packages if f" {name}" not in script.replace("(", " ").replace(")", " ")} == set()


def test_no_test_looks_for_a_program_in_its_own_way() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / "tests").rglob("*.py")
        if path.name != "tools.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "shutil.which"
    ]
    assert found == []
