"""The Debian package: install, upgrade, refused downgrade, remove, purge. One machine, in this order."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.machine import CommandFailed, Machine, clock, until
from tests.system.service import DATABASE, UNIT, configuration, configure, install, restarted
from tests.system.vendor import Backend, Database, Vendor
from watchdog import SCHEMA_VERSION, __version__

# What bash does when somebody types this and a tabulator.
COMPLETION = """
source /usr/share/bash-completion/completions/zego-watchdog
COMP_WORDS=(zego-watchdog expl)
COMP_CWORD=1
_zego_watchdog_completion zego-watchdog
echo "${COMPREPLY[@]}"
"""
ROOT = Path(__file__).parent.parent.parent
NOT_OURS = "/var/lib/zego-watchdog-backups"
NEWER = "99.0.0"
NEWER_SCHEMA = f"{int(SCHEMA_VERSION) + 1:04}"


def repacked(package: Path, folder: Path, version: str, change: Callable[[Path], None]) -> Path:
    """Return the same package as another version, after ``change`` to its unpacked tree."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    replace(tree / "DEBIAN/control", f"Version: {__version__}", f"Version: {version}")
    replace(tree / "DEBIAN/preinst", __version__, version)
    change(tree)
    made = folder / f"{version}.deb"
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "--build", tree, made], check=True)
    return made


@pytest.fixture(scope="module")
def newer(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a package of a later version, whose schema is later too."""
    return repacked(package, tmp_path_factory.mktemp("newer"), NEWER, make_newer)


def make_newer(tree: Path) -> None:
    (library,) = (tree / "opt/zego-watchdog/lib").glob("python3.*/site-packages")
    replace(library / "watchdog/__init__.py", f'"{SCHEMA_VERSION}"', f'"{NEWER_SCHEMA}"')
    replace(library / "watchdog/__init__.py", f'"{__version__}"', f'"{NEWER}"')
    (library / f"watchdog/migrations/versions/{NEWER_SCHEMA}_newer.py").write_text(
        f'revision = "{NEWER_SCHEMA}"\ndown_revision = "{SCHEMA_VERSION}"\n\n\ndef upgrade() -> None:\n    pass\n'
    )
    for compiled in (library / "watchdog/__pycache__").glob("*.pyc"):
        # Python would prefer these to the sources.
        compiled.unlink()
    replace(tree / "DEBIAN/preinst", SCHEMA_VERSION, NEWER_SCHEMA)


@pytest.fixture(scope="module")
def older(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a package of an earlier version that asks for the schema as those did, and whose schema is the same."""

    def change(tree: Path) -> None:
        replace(tree / "DEBIAN/preinst", "from watchdog import", "from watchdog.tables import")

    return repacked(package, tmp_path_factory.mktemp("older"), "0.0.1", change)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, path
    path.write_text(text.replace(old, new))


def files(machine: Machine) -> set[str]:
    """Return every file and directory of the system; not what dpkg and the journal write down, nor what is ours."""
    places = ("/bin", "/boot", "/etc", "/lib", "/media", "/mnt", "/opt", "/sbin", "/srv", "/usr", "/var")
    # The machine that makes the container may have other work meanwhile, in /var/tmp.
    passed_over = ("/var/log/journal", "/var/lib/dpkg", "/var/cache", "/var/lib/docker", "/var/tmp", str(ROOT))  # noqa: S108 - only read
    pruned = [word for path in passed_over for word in ("-path", path, "-prune", "-o")]
    return set(machine.run("find", *places, "-xdev", *pruned, "-print").stdout.splitlines())


@pytest.fixture(scope="module")
def before(machine: Machine) -> set[str]:
    """Return what was there before anything of ours: nothing in /opt, and a directory whose name resembles ours."""
    machine.run("sh", "-euc", f"rm -rf /opt/*; mkdir {NOT_OURS}; touch {NOT_OURS}/file")
    return files(machine)


def test_installed_it_runs_and_harms_nobody(machine: Machine, package: Path, before: set[str]) -> None:
    assert "/opt/zego-watchdog" not in before
    install(machine, package)
    until("it runs", lambda: machine.property(UNIT, "ActiveState") == "active")
    assert machine.property(UNIT, "UnitFileState") == "enabled"
    # No port is opened unless it is enabled.
    assert machine.property("zego-watchdog.socket", "ActiveState") == "inactive"
    assert '"mode": "observe"' in machine.run("zego-watchdog", "status", "--json").stdout
    assert machine.run("stat", "--format=%a", "/etc/zego-watchdog/secrets").stdout.strip() == "700"


def test_it_is_whole(machine: Machine, before: set[str]) -> None:
    assert before
    assert machine.run("dpkg", "--verify", "zego-watchdog").stdout == ""
    assert __version__ in machine.run("zego-watchdog", "version").stdout
    assert machine.run("zego-watchdog", "--version").stdout == machine.run("zego-watchdog", "version").stdout
    page = machine.run("man", "--warnings", "zego-watchdog")
    assert "zego-watchdog explain" in page.stdout
    assert page.stderr == ""
    said = machine.run("bash", "-euc", COMPLETION)
    assert said.stdout.strip() == "explain"
    assert "psycopg" in machine.run("cat", "/usr/share/doc/zego-watchdog/copyright").stdout


def test_its_documents_are_complete(machine: Machine) -> None:
    folder = machine.path("/usr/share/doc/zego-watchdog")
    pages = [folder / "README.md", *(folder / "docs").glob("*.md")]
    assert len(pages) > 10
    dead = {
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)", page.read_text())
        if not target.startswith("https://") and not (page.parent / target).exists()
    }
    assert dead == set()
    for name in ("docs/roles.sql", "monitoring/alerts.yaml", "monitoring/grafana.json"):
        assert (folder / name).read_text() == (ROOT / name).read_text()


def test_using_it_leaves_no_files_in_the_package(machine: Machine) -> None:
    """Everything is compiled already, so root's commands write nothing to /opt."""
    machine.run("zego-watchdog", "status")
    machine.run("zego-watchdog", "check", "--offline", check=False)
    listed = set(machine.run("dpkg", "--listfiles", "zego-watchdog").stdout.splitlines())
    assert {path for path in files(machine) if path.startswith("/opt/zego-watchdog")} <= listed


def test_an_older_package_with_the_same_schema_may_come_back(machine: Machine, package: Path, older: Path) -> None:
    for installed in (older, package):
        install(machine, installed)
        until("it runs", lambda: machine.property(UNIT, "ActiveState") == "active")


def test_an_upgrade_restarts_it_migrates_and_keeps_everything(machine: Machine, vendor: Vendor, newer: Path) -> None:
    configure(machine, configuration())
    machine.systemctl("restart", UNIT)
    backend = Backend(vendor, machine.path(DATABASE))
    tasks = backend.abandon(2)
    backend.expect_stopped(tasks)
    began = clock.monotonic()
    install(machine, newer)
    restarted(machine, UNIT, began)
    assert NEWER in machine.run("zego-watchdog", "version").stdout
    assert backend.database.schema() == NEWER_SCHEMA
    assert machine.path("/etc/zego-watchdog/config.yaml").read_text() == configuration()
    assert backend.have_ended(tasks)
    backend.expect_stopped(backend.abandon())


def test_a_downgrade_is_refused_before_anything_has_changed(machine: Machine, package: Path) -> None:
    pid = machine.main_pid(UNIT)
    with pytest.raises(CommandFailed) as refused:
        install(machine, package)
    assert f"refusing to go back from {NEWER} to {__version__}" in str(refused.value)
    assert NEWER_SCHEMA in str(refused.value)
    assert NEWER in machine.run("zego-watchdog", "version").stdout
    assert machine.property(UNIT, "ActiveState") == "active"
    assert machine.main_pid(UNIT) == pid


def test_an_older_program_refuses_the_newer_database(machine: Machine, package: Path) -> None:
    """A downgrade can be forced; the older program then leaves the database alone."""
    shutil.copy(package, machine.path("/package.deb"))
    command = ("dpkg", "--force-unsafe-io", "--install", "/package.deb")
    machine.run(*command, check=False, ZEGO_WATCHDOG_DOWNGRADE="yes")
    assert __version__ in machine.run("zego-watchdog", "version").stdout
    until("it has given up", lambda: machine.property(UNIT, "ActiveState") == "failed")
    assert machine.property(UNIT, "ExecMainStatus") == "78"
    said = machine.journal(UNIT, "--lines=20")
    assert f"schema version {NEWER_SCHEMA} is newer than this program's {SCHEMA_VERSION}" in said
    assert (
        machine.run("dpkg-query", "--show", "--showformat=${Status}", "zego-watchdog").stdout == "install ok installed"
    )


def test_removal_keeps_configuration_and_history(machine: Machine, newer: Path) -> None:
    install(machine, newer)
    until("it runs", lambda: machine.property(UNIT, "ActiveState") == "active")
    rows = Database(machine.path(DATABASE)).attempts()
    assert rows
    (library,) = machine.path("/opt/zego-watchdog/lib").glob("python3.*/site-packages/watchdog/__pycache__")
    (library / "by_another_python.pyc").touch()
    machine.run("dpkg", "--remove", "zego-watchdog")
    assert machine.path("/opt").is_dir()
    assert machine.property(UNIT, "ActiveState") == "inactive"
    assert not machine.path("/opt/zego-watchdog").exists()
    assert machine.path("/etc/zego-watchdog/config.yaml").read_text() == configuration()
    assert machine.path("/etc/zego-watchdog/secrets/server_secret").exists()
    assert Database(machine.path(DATABASE)).attempts() == rows


def test_installed_again_it_goes_on_where_it_was(machine: Machine, vendor: Vendor, newer: Path) -> None:
    install(machine, newer)
    until("it runs", lambda: machine.property(UNIT, "ActiveState") == "active")
    backend = Backend(vendor, machine.path(DATABASE))
    backend.expect_stopped(backend.abandon())


def test_purged_it_leaves_nothing(machine: Machine, before: set[str]) -> None:
    configure(machine, configuration("sqlite:////var/lib/zego-watchdog-east/watchdog.db"), instance="east")
    machine.systemctl("stop", UNIT)
    machine.systemctl("enable", "--now", "zego-watchdog@east.service", "zego-watchdog.socket")
    machine.systemctl("start", UNIT)
    machine.run("dpkg", "--purge", "zego-watchdog")
    assert sorted(files(machine) - before) == []
    assert sorted(before - files(machine)) == []
    assert {"/opt", f"{NOT_OURS}/file"} <= before
    assert machine.systemctl("list-units", "--all", "--no-legend", "--plain", "zego-watchdog*") == ""
    assert machine.systemctl("list-unit-files", "--no-legend", "zego-watchdog*", check=False) == ""
    assert machine.run("dpkg-query", "--show", "zego-watchdog", check=False).returncode == 1


def test_it_does_not_go_over_an_installation_of_another_kind(machine: Machine, package: Path) -> None:
    machine.run("python3", "-m", "venv", "--without-pip", "/opt/zego-watchdog")
    with pytest.raises(CommandFailed, match="no package created it"):
        install(machine, package)
    assert re.search("home = ", machine.path("/opt/zego-watchdog/pyvenv.cfg").read_text())
    assert not machine.path("/usr/bin/zego-watchdog").exists()
