"""What goes into the Debian package and can be tested without building it; tests/system tests the package itself."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests.support.tools import needs
from watchdog import SCHEMA_VERSION, __version__
from watchdog.cli.app.root import app

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).parent / "zego-watchdog"


def commands(group: object, before: str = "") -> list[str]:
    found: list[str] = []
    for name, command in getattr(group, "commands", {}).items():
        below = commands(command, f"{before}{name} ")
        found += below or [f"{before}{name}"]
    return found


@pytest.fixture(scope="module")
def manual() -> str:
    environment = os.environ | {"SOURCE_DATE_EPOCH": "86400"}
    script = (sys.executable, str(ROOT / "packaging/manual.py"))
    return subprocess.run(script, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_manual_has_every_command_with_its_options(manual: str) -> None:
    said = manual.replace("\\-", "-")
    names = commands(typer.main.get_command(app))
    assert len(names) > 10
    assert re.findall(r'^\.SS "zego-watchdog ([a-z][a-z ]*[a-z])', said, flags=re.MULTILINE) == names
    for option in ("--config PATH", "--server-secret-file FILE", "--json", "--until WHEN"):
        assert f".B {option}" in said
    assert said.startswith(f'.TH ZEGO-WATCHDOG 1 "1970-01-02" "zego-watchdog {__version__}"\n')


@needs("groff")
def test_the_manual_has_no_mistake_that_man_would_notice(manual: str, tmp_path: Path) -> None:
    page = tmp_path / "zego-watchdog.1"
    page.write_text(manual)
    shown = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", page], capture_output=True, text=True, errors="replace", check=True
    )
    assert shown.stderr == ""
    assert "NAME" in shown.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_get_a_completion_that_calls_us(shell: str) -> None:
    environment = os.environ | {"_ZEGO_WATCHDOG_COMPLETE": f"source_{shell}"}
    script = subprocess.run([COMMAND], env=environment, capture_output=True, text=True, check=True).stdout
    assert f"_ZEGO_WATCHDOG_COMPLETE=complete_{shell}" in script


def test_commands_and_options_are_completed() -> None:
    def after(words: str) -> list[str]:
        environment = os.environ | {
            "_ZEGO_WATCHDOG_COMPLETE": "complete_bash",
            "COMP_WORDS": f"zego-watchdog {words}",
            "COMP_CWORD": str(len(words.split(" "))),
        }
        return subprocess.run([COMMAND], env=environment, capture_output=True, text=True, check=True).stdout.split()

    assert after("expl") == ["explain"]
    assert after("hold 1 --unt") == ["--until"]


@pytest.mark.parametrize("name", ["preinst", "postinst", "prerm", "postrm"])
def test_the_maintainer_scripts_are_plain_shell(name: str) -> None:
    script = ROOT / "packaging/deb" / name
    assert script.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", script], check=True)


QUESTIONS = {
    "before 0.2": "from watchdog.tables import SCHEMA_VERSION; print(SCHEMA_VERSION)",
    "now": "from watchdog import SCHEMA_VERSION; print(SCHEMA_VERSION)",
}
"""What a package's preinst asks the program that is installed, before it replaces it with an older one."""


@needs("dpkg-query")
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(("schema", "code"), [(SCHEMA_VERSION, 0), ("0001", 1)])
def test_an_older_package_may_come_back_unless_its_schema_is_older(question: str, schema: str, code: int) -> None:
    script = (ROOT / "packaging/deb/preinst").read_text()
    filled_in = {
        QUESTIONS["now"]: QUESTIONS[question],
        "/opt/zego-watchdog/bin/python": sys.executable,
        "@VERSION@": "0.0.1",
        "@SCHEMA@": schema,
    }
    for there, instead in filled_in.items():
        assert there in script
        script = script.replace(there, instead)
    command = ["sh", "-c", script, "preinst", "upgrade", __version__]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    # With "unknown" in its place the program would not have answered.
    assert (f"the database now has schema {SCHEMA_VERSION}," in done.stderr) is bool(code)


@needs("dpkg-query", "kill")
def test_the_package_depends_on_what_its_units_call() -> None:
    units = "".join(unit.read_text() for unit in (ROOT / "systemd").glob("*.service"))
    called = set(re.findall(r"^Exec\w+=(\S+)", units, flags=re.MULTILINE)) - {"/opt/zego-watchdog/bin/zego-watchdog"}
    assert called == {"/bin/kill"}
    search = ["dpkg-query", "--search", *called]
    owners = subprocess.run(search, capture_output=True, text=True, check=True).stdout
    (depends,) = re.findall(r"^Depends: (.*)$", (ROOT / "packaging/deb/control").read_text(), flags=re.MULTILINE)
    assert {line.partition(":")[0] for line in owners.splitlines()} <= set(depends.split(", "))


def test_the_package_brings_certificates_even_without_what_is_recommended() -> None:
    (depends,) = re.findall(r"^Depends: (.*)$", (ROOT / "packaging/deb/control").read_text(), flags=re.MULTILINE)
    assert "ca-certificates" in depends.split(", ")


def test_the_index_page_has_no_link_that_leads_nowhere() -> None:
    command = [sys.executable, "-m", "hatchling", "metadata"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    metadata = json.loads(said)
    assert metadata["authors"] == [{"name": "The zego-watchdog authors"}]
    text = metadata["readme"]["text"]
    assert metadata["readme"]["content-type"] == "text/markdown"
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    # The words of a link stay, and those of a picture. In a block of code a bracket is a list.
    assert " [" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert "the SQL cookbook (docs/sql.md)" in text
    assert "![" not in text


def test_every_placeholder_is_filled_in() -> None:
    builder = (ROOT / "packaging/build_deb.sh").read_text()
    used = {
        name
        for path in (ROOT / "packaging/deb").iterdir()
        for name in re.findall(r"@[A-Z_]+@", path.read_text(encoding="utf-8"))
    }
    assert used
    assert {name for name in used if f"s|{name}|" not in builder} == set()
