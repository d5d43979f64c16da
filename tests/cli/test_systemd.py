"""``zego-watchdog systemd``: install into another root, repeat, keep edited files, uninstall."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.support.tools import needs
from watchdog.cli.app.root import app
from watchdog.cli.commands.systemd import Wanted, check_program, install_steps
from watchdog.config import load
from watchdog.core.model import Mode
from watchdog.errors import InstallationError

PROGRAM = "/usr/lib/zego/bin/zego-watchdog"
SERVICE = Path("etc/systemd/system/zego-watchdog.service")
CONFIG = Path("etc/zego-watchdog/config.yaml")

pytestmark = needs("systemctl")


class Machine:
    """The root directory of a system that is not running."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def systemd(self, command: str, *words: str) -> Result:
        return CliRunner().invoke(app, ["systemd", command, f"--root={self.root}", *words])

    def install(self, *words: str) -> Result:
        return self.systemd("install", f"--program={PROGRAM}", *words)

    def holds(self) -> Mapping[str, str]:
        """Return every path below the root with a digest of its content."""
        held = {}
        for path in sorted(self.root.rglob("*")):
            if path.is_symlink():
                held[str(path.relative_to(self.root))] = f"-> {path.readlink()}"
            elif path.is_file():
                held[str(path.relative_to(self.root))] = hashlib.sha256(path.read_bytes()).hexdigest()
        return held

    def text(self, path: Path | str) -> str:
        return (self.root / path).read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "root").mkdir()
    return Machine(tmp_path / "root")


def test_without_yes_it_only_prints_its_steps(machine: Machine) -> None:
    said = machine.install()
    assert said.exit_code == 0
    assert f"would write {machine.root / SERVICE}\n" in said.stdout
    assert "enable zego-watchdog.service" in said.stdout
    assert "--yes" in said.stderr
    assert list(machine.root.iterdir()) == []
    done = machine.install("--yes")
    assert done.stdout.splitlines() == [line.removeprefix("would ") for line in said.stdout.splitlines()]


def test_what_is_installed(machine: Machine) -> None:
    assert machine.install("--yes").exit_code == 0
    assert list(machine.holds()) == [
        "etc/systemd/system/multi-user.target.wants/zego-watchdog.service",
        str(SERVICE),
        "etc/systemd/system/zego-watchdog.socket",
        "etc/systemd/system/zego-watchdog@.service",
        str(CONFIG),
    ]
    assert f"\nExecStart={PROGRAM} --config /etc/zego-watchdog/config.yaml run --migrate\n" in machine.text(SERVICE)
    assert (machine.root / "etc/zego-watchdog/secrets").stat().st_mode & 0o777 == 0o700
    assert "/opt/" not in machine.text(SERVICE)
    config = load(machine.root / CONFIG, {})
    assert config.policy.mode is Mode.OBSERVE
    assert config.database.sqlite_file == Path("/var/lib/zego-watchdog/zego-watchdog.db")
    assert "#    server_secret_file: ${CREDENTIALS_DIRECTORY}/zego_server_secret\n" in machine.text(CONFIG)


def test_a_second_time_there_is_nothing_to_do(machine: Machine) -> None:
    machine.install("--socket", "--yes")
    before = machine.holds()
    again = machine.install("--socket", "--yes")
    assert (again.exit_code, again.stdout) == (0, "Nothing to do.\n")
    assert machine.holds() == before
    assert "etc/systemd/system/sockets.target.wants/zego-watchdog.socket" in before


def test_after_an_upgrade_the_units_are_new_and_the_configuration_is_not(machine: Machine) -> None:
    machine.install("--yes")
    (machine.root / CONFIG).write_text("policy: {mode: observe}\n")
    upgraded = machine.systemd("install", "--program=/usr/lib/elsewhere/zego-watchdog", "--yes")
    assert upgraded.exit_code == 0
    assert "ExecStart=/usr/lib/elsewhere/zego-watchdog " in machine.text(SERVICE)
    assert machine.text(CONFIG) == "policy: {mode: observe}\n"


def test_edited_files_are_kept(machine: Machine) -> None:
    machine.install("--yes")
    changed = machine.text(SERVICE).replace("MemoryMax=512M", "MemoryMax=1G")
    (machine.root / SERVICE).write_text(changed)
    before = machine.holds()
    again = machine.install("--yes")
    assert again.exit_code == 1
    assert "zego-watchdog.service" in again.stderr
    assert "systemctl edit" in again.stderr
    assert machine.holds() == before

    removed = machine.systemd("uninstall", "--yes")
    assert removed.exit_code == 0
    assert f"{machine.root / SERVICE} was edited" in removed.stderr
    assert machine.text(SERVICE) == changed
    assert str(CONFIG) in machine.holds()


def test_a_sqlite_file_shared_with_the_application(machine: Machine) -> None:
    assert machine.install("--sqlite-dir", "/srv/shop/data", "--yes").exit_code == 0
    drop_in = machine.text("etc/systemd/system/zego-watchdog.service.d/shared-sqlite.conf")
    assert "ReadWritePaths=-/srv/shop/data\n" in drop_in
    assert "UMask=0007\n" in drop_in
    assert "zego-watchdog:" in machine.text("etc/passwd")
    assert "zego-watchdog:" in machine.text("etc/group")
    config = load(machine.root / CONFIG, {})
    assert config.database.sqlite_file == Path("/srv/shop/data/zego-watchdog.db")
    assert machine.install("--sqlite-dir", "data").exit_code == 2


@pytest.mark.parametrize(("version", "has_it"), [(252, False), (253, True), (257, True), (None, False)])
def test_systemd_253_and_later_use_notify_reload(machine: Machine, version: int | None, *, has_it: bool) -> None:
    wanted = Wanted(Path(PROGRAM), shared=None, with_socket=False, systemd=version)
    for step in install_steps(machine.root, wanted):
        step.do()
    drop_ins = [path for path in machine.holds() if path.endswith("notify-reload.conf")]
    assert len(drop_ins) == (2 if has_it else 0)
    machine.systemd("uninstall", "--yes")
    assert [path for path in machine.holds() if "systemd/system" in path] == []


def test_uninstall(machine: Machine) -> None:
    nothing = machine.systemd("uninstall", "--yes")
    assert (nothing.exit_code, nothing.stdout) == (0, "Nothing to do.\n")
    machine.install("--socket", "--yes")
    private, public = (machine.root / "var/lib" / name for name in ("private/zego-watchdog", "zego-watchdog"))
    private.mkdir(parents=True)
    public.symlink_to("private/zego-watchdog")
    (private / "zego-watchdog.db").write_text("data")
    (machine.root / "etc/zego-watchdog/secrets/server_secret").write_text("not real")

    before = machine.holds()
    assert "would remove" in machine.systemd("uninstall").stdout
    assert machine.holds() == before
    assert machine.systemd("uninstall", "--yes").exit_code == 0
    assert list(machine.holds()) == [
        str(CONFIG),
        "etc/zego-watchdog/secrets/server_secret",
        "var/lib/private/zego-watchdog/zego-watchdog.db",
        "var/lib/zego-watchdog",
    ]
    assert machine.systemd("uninstall", "--purge", "--yes").exit_code == 0
    assert machine.holds() == {}


def test_a_packaged_unit_is_not_replaced(machine: Machine) -> None:
    packaged = machine.root / "usr/lib/systemd/system/zego-watchdog.service"
    packaged.parent.mkdir(parents=True)
    packaged.touch()
    refused = machine.install("--yes")
    assert refused.exit_code == 1
    assert "belongs to a package" in refused.stderr


@pytest.mark.parametrize(
    "program", ["/home/me/venv/bin/zego-watchdog", "/ro" + "ot/venv/bin/zego-watchdog", "/run/user/7/zego-watchdog"]
)
def test_a_program_that_the_unit_cannot_see_is_refused(machine: Machine, program: str) -> None:
    refused = machine.systemd("install", f"--program={program}")
    assert refused.exit_code == 1
    assert f"{program} is under /" in refused.stderr
    assert "python3 -m venv /opt/zego-watchdog" in refused.stderr


@pytest.mark.parametrize("program", ["/opt/my programs/zego-watchdog", "/opt/50%/zego-watchdog", "bin/zego-watchdog"])
def test_a_path_that_a_unit_cannot_contain_is_refused(machine: Machine, program: str) -> None:
    assert machine.systemd("install", f"--program={program}").exit_code == 1


def test_the_interpreter_and_the_package_are_checked_too() -> None:
    with pytest.raises(InstallationError, match=r"/home/me/\.pyenv/python3 is under /home"):
        check_program(Path(PROGRAM), Path("/usr/lib/python3"), Path("/home/me/.pyenv/python3"))


def test_an_unwritable_directory_is_a_message(machine: Machine) -> None:
    # A file in place of the directory stops root too.
    (machine.root / "etc").write_text("")
    refused = machine.install("--yes")
    assert refused.exit_code == 1
    assert "Traceback" not in refused.output
