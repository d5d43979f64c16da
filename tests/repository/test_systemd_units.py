"""The units as systemd itself judges them: no word that it does not know, and an exposure of 1.2 at most."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.tools import needs

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "systemd"
SERVICE, TEMPLATE, SOCKET = "zego-watchdog.service", "zego-watchdog@.service", "zego-watchdog.socket"
DROP_INS = FOLDER / f"{SERVICE}.d"

pytestmark = needs("systemd-analyze")


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)


def settings(file: Path) -> list[str]:
    """Return its lines without comments and blank ones."""
    return [line for line in file.read_text().splitlines() if line and not line.startswith(("#", ";"))]


def laid_out(folder: Path, drop_ins: Sequence[str] = ()) -> Path:
    """Copy the units as they are installed, with a program that is there."""
    for name in (SERVICE, TEMPLATE, SOCKET):
        text = (FOLDER / name).read_text()
        assert name == SOCKET or "ExecStart=/opt/zego-watchdog/bin/zego-watchdog " in text
        (folder / name).write_text(text.replace("/opt/zego-watchdog/bin/zego-watchdog", "/bin/true"))
    for drop_in in drop_ins:
        for unit in (SERVICE, TEMPLATE):
            (folder / f"{unit}.d").mkdir(exist_ok=True)
            shutil.copy(DROP_INS / drop_in, folder / f"{unit}.d")
    return folder


@pytest.mark.parametrize("drop_ins", [(), ("shared-sqlite.conf",)], ids=["as they are", "shared SQLite"])
def test_systemd_has_nothing_to_say_against_them(tmp_path: Path, drop_ins: Sequence[str]) -> None:
    folder = laid_out(tmp_path, drop_ins)
    instance = shutil.copy(folder / TEMPLATE, folder / "zego-watchdog@prod.service")
    checked = analyze("verify", str(folder / SERVICE), str(instance), str(folder / SOCKET))
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("drop_ins", [(), ("shared-sqlite.conf",)], ids=["as they are", "shared SQLite"])
@pytest.mark.parametrize("unit", [SERVICE, TEMPLATE])
def test_they_are_exposed_as_little_as_was_measured(tmp_path: Path, unit: str, drop_ins: Sequence[str]) -> None:
    folder = laid_out(tmp_path)
    # An offline verdict is on one file alone.
    with (folder / unit).open("a") as file:
        for drop_in in drop_ins:
            file.write("\n" + (DROP_INS / drop_in).read_text())
    judged = analyze("security", "--offline=true", "--threshold=12", str(folder / unit))
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_a_weaker_unit_would_be_noticed(tmp_path: Path) -> None:
    weaker = laid_out(tmp_path) / SERVICE
    weaker.write_text(weaker.read_text().replace("CapabilityBoundingSet=\n", ""))
    assert analyze("security", "--offline=true", "--threshold=12", str(weaker)).returncode != 0


def test_the_drop_in_for_later_versions_says_no_more_than_it_must() -> None:
    # systemd 252 refuses the type, so that it cannot be asked about this one.
    assert settings(DROP_INS / "notify-reload.conf") == ["[Service]", "Type=notify-reload", "ExecReload="]


def test_the_template_is_the_service_with_other_places() -> None:
    def told_apart(one: Path, other: Path) -> set[str]:
        return {line.partition("=")[0] for line in set(settings(one)) - set(settings(other))}

    service, template = FOLDER / SERVICE, FOLDER / TEMPLATE
    places = {"Description", "ExecStart", "StateDirectory", "WorkingDirectory", "LoadCredential"}
    assert told_apart(template, service) == places
    assert told_apart(service, template) == places | {"User"}


@pytest.mark.parametrize("unit", [SERVICE, TEMPLATE])
def test_what_only_a_fault_would_show(unit: str) -> None:
    lines = settings(FOLDER / unit)
    # Each of these was learned the hard way: see docs/decisions.md.
    for line in (
        "Type=notify",
        "NotifyAccess=main",
        "WatchdogSec=15s",
        "WatchdogSignal=SIGABRT",
        "Restart=always",
        "RestartSec=1s",
        "StartLimitIntervalSec=0",
        "RestartPreventExitStatus=78",
        "TimeoutStopSec=20s",
        "ExecReload=/bin/kill -HUP $MAINPID",
    ):
        assert line in lines
    assert not [line for line in lines if line.startswith(("Requires=", "ExecStartPre=", "ProcSubset="))]


def test_the_socket_is_where_the_documentation_has_it() -> None:
    (listen,) = re.findall(r"^ListenStream=(.*)$", (FOLDER / SOCKET).read_text(), re.MULTILINE)
    assert listen == "127.0.0.1:8765"
    assert f"listen: {listen}" in (ROOT / "docs" / "callbacks.md").read_text()


def test_the_wheel_brings_them() -> None:
    assert '"systemd" = "watchdog/systemd"' in (ROOT / "pyproject.toml").read_text()
