"""``systemd install`` and ``systemd uninstall``: build a list of steps, print it, and on request run it.

Only missing parts become steps, so the commands are idempotent. Each file we write starts with a checksum of the rest:
if an administrator has edited a file, it is neither replaced nor removed.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import watchdog
from watchdog.cli.commands.shared_sqlite import check_directory, has_user, sharing_steps
from watchdog.cli.commands.steps import Step, command
from watchdog.errors import ConfigError, InstallationError
from watchdog.shipped import shipped

UNIT: Final = "zego-watchdog.service"
TEMPLATE: Final = "zego-watchdog@.service"
SOCKET: Final = "zego-watchdog.socket"
UNITS: Final = Path("etc/systemd/system")
CONFIGURATION: Final = Path("etc/zego-watchdog")
STATE: Final = (Path("var/lib/private/zego-watchdog"), Path("var/lib/zego-watchdog"))
SYSUSERS: Final = Path("etc/sysusers.d/zego-watchdog.conf")
PACKAGED: Final = (Path("lib/systemd/system") / UNIT, Path("usr/lib/systemd/system") / UNIT)

_PROGRAM: Final = "/opt/zego-watchdog/bin/zego-watchdog"
_SHARED: Final = "/srv/zego-watchdog"
_CHECKSUM_LINE: Final = (
    "# Written by `zego-watchdog systemd install`; change it with a drop-in (systemctl edit). Seal: "
)
"""Never change this text: it identifies files of earlier versions."""
_NOTIFY_RELOAD_SINCE: Final = 253
_HIDDEN: Final = ("/root", "/home", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - hidden by ProtectHome= and PrivateTmp=
_SPECIAL_CHARACTER: Final = re.compile(r"[^\w./+@:=,-]")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The service to install.

    ``shared`` is the directory of a SQLite file that the application also writes; ``systemd`` is systemd's version,
    None without systemd.
    """

    program: Path
    shared: Path | None
    with_socket: bool
    systemd: int | None


def this_program() -> Path:
    """Return the running command for the unit. Raises InstallationError if a unit cannot start it."""
    command = Path(sys.executable).parent / "zego-watchdog"
    check_program(command, Path(sys.executable).resolve(), Path(watchdog.__file__ or "").resolve())
    if not os.access(command, os.X_OK):
        raise InstallationError(f"there is no command {command}; install zego-watchdog with pip, do not copy it")
    return command


def check_program(command: Path, *parts: Path) -> None:
    """Raise InstallationError if the hardened unit cannot start ``command`` or read its ``parts``."""
    for path in (command, *parts):
        if hidden := next((folder for folder in _HIDDEN if path.is_relative_to(folder)), None):
            raise InstallationError(
                f"{path} is under {hidden}, which the unit cannot see (ProtectHome=, PrivateTmp=); install with the "
                "system's Python: /usr/bin/python3 -m venv --clear /opt/zego-watchdog, then /opt/zego-watchdog/bin/pip "
                "install, as you did here, then /opt/zego-watchdog/bin/zego-watchdog systemd install"
            )
    if _SPECIAL_CHARACTER.search(str(command)) or not command.is_absolute():
        raise InstallationError(f"{command}: a unit needs an absolute path without special characters")


def check_shared(root: Path, folder: Path) -> None:
    """Raise InstallationError or ConfigError if the service cannot share a SQLite file in ``folder``."""
    if hidden := next((top for top in _HIDDEN if folder.is_relative_to(top)), None):
        raise InstallationError(
            f"{folder} is under {hidden}, which the unit cannot see (ProtectHome=, PrivateTmp=); choose a directory "
            "elsewhere, such as /srv/zego-watchdog"
        )
    if _SPECIAL_CHARACTER.search(str(folder)) or ".." in folder.parts:
        raise InstallationError(f"{folder}: a unit needs a path without blanks, .. and special characters")
    check_directory(root, folder, root / CONFIGURATION / "config.yaml")


def install_steps(root: Path, wanted: Wanted) -> Iterator[Step]:
    """The steps that install the service in ``root``; none if it runs. Raises InstallationError, ConfigError."""
    if wanted.shared is not None:
        check_shared(root, wanted.shared)
    packaged = next((root / unit for unit in PACKAGED if (root / unit).exists()), None)
    if packaged is not None and wanted.shared is None:
        raise InstallationError(
            f"{packaged} belongs to a package that installs the service; edit it with: systemctl edit {UNIT}"
        )
    files = dict(_shared_files(wanted.shared) if packaged and wanted.shared else _files(wanted))
    _refuse_edited_files(root, files)
    to_write = [path for path, text in files.items() if _read(root / path) != text]
    for path in to_write:
        yield Step(f"write {root / path}", partial(_write, root / path, files[path]))
    config, secrets = root / CONFIGURATION / "config.yaml", root / CONFIGURATION / "secrets"
    if not config.exists():
        yield Step(f"write {config} with mode observe, which stops nothing", partial(_write, config, _example(wanted)))
    if not secrets.is_dir():
        yield Step(f"create {secrets}, mode 700, for the files with secrets", partial(_make_private, secrets))
    if SYSUSERS in to_write or (wanted.shared is not None and not has_user(root)):
        if _is_running_system(root) and (packaged or (root / UNITS / UNIT).exists()):
            # A running service has a dynamic user of the same name; it disappears when the service stops.
            yield command("systemctl", "stop", SOCKET, UNIT)
        yield command("systemd-sysusers", *_rooted(root), str(root / SYSUSERS))
    if wanted.shared is not None:
        yield from sharing_steps(root, wanted.shared, config)
    yield from _enable(root, wanted, units_changed=any(path.is_relative_to(UNITS) for path in to_write))


def _refuse_edited_files(root: Path, files: Mapping[Path, str]) -> None:
    edited = [
        str(root / path)
        for path, text in files.items()
        if _read(root / path) not in {None, text} and not _is_unedited(root / path)
    ]
    if edited:
        raise InstallationError(
            f"edited since it was written: {', '.join(edited)}; move the changes to a drop-in "
            f"(systemctl edit {UNIT}), remove the file, and install again"
        )


def _enable(root: Path, wanted: Wanted, *, units_changed: bool) -> Iterator[Step]:
    units = [SOCKET, UNIT] if wanted.with_socket else [UNIT]
    to_enable = [unit for unit in units if not _is_enabled(root, unit)]
    running = _is_running_system(root)
    # An earlier installation may have failed between writing the units and this.
    units_changed = units_changed or (running and _is_outdated())
    if units_changed and running:
        yield command("systemctl", "daemon-reload")
    if to_enable:
        yield command("systemctl", *_rooted(root), "enable", *to_enable)
    # Also if an earlier installation failed to start it.
    if running and (units_changed or to_enable or not _is_active()):
        if wanted.with_socket:
            # The running service holds the port, so the socket cannot start before it stops.
            yield command("systemctl", "stop", UNIT)
            yield command("systemctl", "restart", SOCKET)
        yield command("systemctl", "restart", UNIT)


def uninstall_steps(root: Path, *, purge: bool) -> Iterator[Step]:
    """The steps that remove the service; ``purge`` also removes configuration, secrets and database."""
    running = _is_running_system(root)
    files = [path for path in _existing(root) if _is_unedited(path)]
    units = [unit for unit in (SOCKET, UNIT) if root / UNITS / unit in files]
    if units and running:
        yield command("systemctl", "disable", "--now", *units)
    elif enabled := [unit for unit in units if _is_enabled(root, unit)]:
        yield command("systemctl", *_rooted(root), "disable", *enabled)
    for path in files:
        yield Step(f"remove {path}", partial(_remove, path))
    if files and running:
        yield command("systemctl", "daemon-reload")
    for folder in (CONFIGURATION, *STATE) if purge else ():
        if (root / folder).is_symlink() or (root / folder).exists():
            yield Step(f"remove {root / folder} and its contents", partial(_remove, root / folder))


def edited_files(root: Path) -> Sequence[Path]:
    """Files that ``uninstall_steps`` does not remove, because an administrator edited them."""
    return [path for path in _existing(root) if not _is_unedited(path)]


def systemd_version() -> int | None:
    try:
        output = subprocess.run(
            ["systemctl", "--version"],  # noqa: S607 - found in PATH
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.match(r"systemd (\d+)", output)
    return int(found[1]) if found else None


def _files(wanted: Wanted) -> Iterator[tuple[Path, str]]:
    folder = shipped("systemd")
    for name in (UNIT, TEMPLATE, SOCKET):
        text = (folder / name).read_text(encoding="utf-8")
        yield UNITS / name, _with_checksum(text.replace(_PROGRAM, str(wanted.program)))
    drop_ins = folder / f"{UNIT}.d"
    if wanted.systemd is not None and wanted.systemd >= _NOTIFY_RELOAD_SINCE:
        text = (drop_ins / "notify-reload.conf").read_text(encoding="utf-8")
        for unit in (UNIT, TEMPLATE):
            yield UNITS / f"{unit}.d/notify-reload.conf", _with_checksum(text)
    if wanted.shared is not None:
        yield from _shared_files(wanted.shared)


def _shared_files(shared: Path) -> Iterator[tuple[Path, str]]:
    """What a service that shares a SQLite file has besides its units; a package has no others of ours."""
    folder = shipped("systemd")
    text = (folder / f"{UNIT}.d/shared-sqlite.conf").read_text(encoding="utf-8")
    yield UNITS / f"{UNIT}.d/shared-sqlite.conf", _with_checksum(text.replace(_SHARED, str(shared)))
    yield SYSUSERS, _with_checksum((folder / "zego-watchdog.sysusers.conf").read_text(encoding="utf-8"))


def _example(wanted: Wanted) -> str:
    places = {
        "sqlite:///zego-watchdog.db": f"sqlite:///{wanted.shared or '/var/lib/zego-watchdog'}/zego-watchdog.db",
        "server_secret_file: /etc/zego-watchdog/": "server_secret_file: ${CREDENTIALS_DIRECTORY}/zego_",
        "callback_secret_file: /etc/zego-watchdog/": "callback_secret_file: ${CREDENTIALS_DIRECTORY}/zego_",
    }
    text = shipped("config.yaml").read_text(encoding="utf-8")
    for before, after in places.items():
        if before not in text:
            raise ConfigError(f"the example configuration does not contain {before}; install zego-watchdog again")
        text = text.replace(before, after)
    return text


def _with_checksum(text: str) -> str:
    return f"{_CHECKSUM_LINE}{hashlib.sha256(text.encode()).hexdigest()[:16]}\n{text}"


def _is_unedited(path: Path) -> bool:
    text = _read(path) or ""
    return text == _with_checksum(text.partition("\n")[2])


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _existing(root: Path) -> list[Path]:
    """The existing files at the paths that ``install_steps`` writes."""
    drop_ins = [root / UNITS / f"{unit}.d" for unit in (UNIT, TEMPLATE)]
    candidates = [
        *(root / UNITS / name for name in (UNIT, TEMPLATE, SOCKET)),
        *(folder / name for folder in drop_ins for name in ("notify-reload.conf", "shared-sqlite.conf")),
        root / SYSUSERS,
    ]
    return [path for path in candidates if path.is_file()]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o644)
    new.replace(path)


def _make_private(path: Path) -> None:
    path.mkdir(parents=True)
    path.chmod(0o700)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        return
    path.unlink()
    drop_ins = path.parent
    if drop_ins.name.endswith(".service.d") and not any(drop_ins.iterdir()):
        drop_ins.rmdir()


def _rooted(root: Path) -> tuple[str, ...]:
    return () if root == Path("/") else (f"--root={root}",)


def _is_running_system(root: Path) -> bool:
    """Whether ``root`` is this machine, booted with systemd."""
    return root == Path("/") and Path("/run/systemd/system").is_dir()


def _is_active() -> bool:
    command = ["systemctl", "is-active", "--quiet", UNIT]
    return subprocess.run(command, check=False).returncode == 0  # noqa: S603 - our own words


def _is_outdated() -> bool:
    """Whether systemd has not read the unit's files since they changed."""
    command = ["systemctl", "show", "--value", "--property=NeedDaemonReload", UNIT]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == "yes"  # noqa: S603 - our own words


def _is_enabled(root: Path, unit: str) -> bool:
    # Not exists(): in another root the links are dangling.
    return any((folder / unit).is_symlink() for folder in (root / UNITS).glob("*.wants"))
