"""``zego-watchdog systemd``: install into another root, repeat, keep edited files, uninstall."""

import hashlib
import os
import re
import stat
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

ROOT = Path(__file__).parents[2]
PROGRAM = "/usr/lib/zego/bin/zego-watchdog"
SERVICE = Path("etc/systemd/system/zego-watchdog.service")
CONFIG = Path("etc/zego-watchdog/config.yaml")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to a group")

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


def mode_of(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):o}"


@as_root
def test_the_shared_directory_and_its_file_are_created_for_the_group(machine: Machine) -> None:
    said = machine.install("--sqlite-dir", "/srv/shop/data", "--yes")
    assert said.exit_code == 0, said.output
    folder = machine.root / "srv/shop/data"
    file = folder / "zego-watchdog.db"
    uid, gid = map(int, re.findall(r"^zego-watchdog:x:(\d+):(\d+):", machine.text("etc/passwd"), re.MULTILINE)[0])
    assert (mode_of(folder), folder.stat().st_gid) == ("2770", gid)
    assert (mode_of(file), file.stat().st_uid, file.stat().st_gid) == ("660", uid, gid)
    assert "usermod --append --groups zego-watchdog USER" in said.stderr
    assert machine.install("--sqlite-dir", "/srv/shop/data", "--yes").stdout == "Nothing to do.\n"


@as_root
def test_a_file_of_the_application_is_shared_and_stays_its_own(machine: Machine) -> None:
    folder = machine.root / "srv/app"
    folder.mkdir(parents=True)
    for name in ("zego-watchdog.db", "zego-watchdog.db-wal", "other.db"):
        (folder / name).write_text("data")
        (folder / name).chmod(0o600)
        os.chown(folder / name, 4321, 4321)
    assert machine.install("--sqlite-dir", "/srv/app", "--yes").exit_code == 0
    for name in ("zego-watchdog.db", "zego-watchdog.db-wal"):
        assert (mode_of(folder / name), (folder / name).stat().st_uid) == ("660", 4321)
        assert (folder / name).stat().st_gid == folder.stat().st_gid != 4321
        assert (folder / name).read_text() == "data"
    assert (mode_of(folder / "other.db"), (folder / "other.db").stat().st_gid) == ("600", 4321)
    (folder / "zego-watchdog.db").chmod(0o640)
    again = machine.install("--sqlite-dir", "/srv/app", "--yes")
    assert again.stdout == f"give {folder}/zego-watchdog.db to the group zego-watchdog, mode g+rw\n"


@as_root
def test_the_file_that_the_configuration_names_is_shared(machine: Machine) -> None:
    machine.install("--sqlite-dir", "/srv/app", "--yes")
    (machine.root / CONFIG).write_text("{database: {url: sqlite:////srv/app/shop.db}, policy: {mode: observe}}\n")
    assert "create" in machine.install("--sqlite-dir", "/srv/app", "--yes").stdout
    assert mode_of(machine.root / "srv/app/shop.db") == "660"
    (machine.root / CONFIG).write_text("{database: {url: sqlite:////var/lib/x.db}, policy: {mode: observe}}\n")
    refused = machine.install("--sqlite-dir", "/srv/app", "--yes")
    assert (refused.exit_code, "leave out --sqlite-dir" in refused.stderr) == (78, True)


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("/tmp/app", "is under /tmp, which the unit cannot see"),  # noqa: S108 - refused
        ("/home/me/app", "is under /home"),
        ("/srv", "a directory of the system"),
        ("/srv/a b", "without blanks"),
        ("/srv/app.db", "give the directory of the file: /srv"),
        ("/opt/closed/app", "cannot pass through /opt/closed, which has mode 700; run: chmod o+x /opt/closed"),
    ],
)
def test_a_directory_that_cannot_be_shared_is_refused_before_anything_is_done(
    machine: Machine, folder: str, said: str
) -> None:
    (machine.root / "opt/closed").mkdir(parents=True)
    (machine.root / "opt/closed").chmod(0o700)
    (machine.root / "srv").mkdir()
    (machine.root / "srv/app.db").touch()
    before = machine.holds()
    refused = machine.install("--sqlite-dir", folder, "--yes")
    assert (refused.exit_code, said in refused.stderr) == (1, True), refused.output
    assert machine.holds() == before


@as_root
def test_a_step_that_failed_is_named_and_done_the_next_time(machine: Machine) -> None:
    # A file where systemd-sysusers would write.
    (machine.root / "etc").mkdir()
    (machine.root / "etc/passwd").mkdir()
    failed = machine.install("--sqlite-dir", "/srv/app", "--yes")
    assert failed.exit_code == 1
    assert "could not run systemd-sysusers" in failed.stderr
    assert "exit code" in failed.stderr
    (machine.root / "etc/passwd").rmdir()
    assert machine.install("--sqlite-dir", "/srv/app", "--yes").exit_code == 0
    assert (machine.root / "srv/app/zego-watchdog.db").is_file()


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


@as_root
def test_a_packaged_service_can_share_a_sqlite_file(machine: Machine) -> None:
    """It brings no units, but it needs the fixed user and the rights."""
    packaged = machine.root / "usr/lib/systemd/system/zego-watchdog.service"
    packaged.parent.mkdir(parents=True)
    packaged.write_text((ROOT / "systemd/zego-watchdog.service").read_text())
    assert machine.install("--sqlite-dir", "/srv/app", "--yes").exit_code == 0
    units = [path for path in machine.holds() if path.startswith("etc/systemd")]
    assert units == [
        "etc/systemd/system/multi-user.target.wants/zego-watchdog.service",
        "etc/systemd/system/zego-watchdog.service.d/shared-sqlite.conf",
    ]
    assert (machine.root / "srv/app/zego-watchdog.db").is_file()
    assert machine.install("--sqlite-dir", "/srv/app", "--yes").stdout == "Nothing to do.\n"
    assert machine.systemd("uninstall", "--yes").exit_code == 0
    assert "etc/systemd/system/zego-watchdog.service.d/shared-sqlite.conf" not in machine.holds()


@pytest.mark.parametrize(
    "program", ["/home/me/venv/bin/zego-watchdog", "/ro" + "ot/venv/bin/zego-watchdog", "/run/user/7/zego-watchdog"]
)
def test_a_program_that_the_unit_cannot_see_is_refused(machine: Machine, program: str) -> None:
    refused = machine.systemd("install", f"--program={program}")
    assert refused.exit_code == 1
    assert f"{program} is under /" in refused.stderr
    assert "/usr/bin/python3 -m venv --clear /opt/zego-watchdog" in refused.stderr


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
