"""Becoming a systemd service, and ceasing to be one: first a list of steps, then, if that is wanted, the doing.

Only what is missing becomes a step, so that the same command may be given again. Files that we write begin with a line
that seals the rest: one that somebody has changed since is theirs, and is neither replaced nor removed.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import typer

import watchdog
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
_SEAL: Final = "# Written by `zego-watchdog systemd install`; change it with a drop-in (systemctl edit). Seal: "
_NOTIFY_RELOAD_SINCE: Final = 253
_HIDDEN: Final = ("/root", "/home", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - by ProtectHome= and PrivateTmp=
_ODD: Final = re.compile(r"[^\w./+@:=,-]")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do: in words, and the doing of it."""

    says: str
    do: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What kind of service: ``shared`` is the directory of a SQLite file that the application writes too.

    ``systemd`` is systemd's version; None where there is none.
    """

    command: Path
    shared: Path | None
    with_socket: bool
    systemd: int | None


def this_program() -> Path:
    """The command that is running, as a unit is to start it. Raises InstallationError where a unit could not."""
    command = Path(sys.executable).parent / "zego-watchdog"
    check_program(command, Path(sys.executable).resolve(), Path(watchdog.__file__ or "").resolve())
    if not os.access(command, os.X_OK):
        raise InstallationError(f"there is no command {command}; install zego-watchdog with pip, not by copying it")
    return command


def check_program(command: Path, *its_parts: Path) -> None:
    """Raise InstallationError where a hardened unit could not start ``command``."""
    for path in (command, *its_parts):
        if hidden := next((folder for folder in _HIDDEN if path.is_relative_to(folder)), None):
            raise InstallationError(
                f"{path} lies under {hidden}, which the unit does not see (ProtectHome=, PrivateTmp=); install into a "
                "place of its own, with a Python that lies elsewhere too: python3 -m venv /opt/zego-watchdog, then "
                "/opt/zego-watchdog/bin/pip install, as you did here, and /opt/zego-watchdog/bin/zego-watchdog systemd "
                "install"
            )
    if _ODD.search(str(command)) or not command.is_absolute():
        raise InstallationError(f"{command}: a unit cannot name such a path; take a whole one, without odd characters")


def install(root: Path, wanted: Wanted) -> Iterator[Step]:
    """What there is to do to become a service of ``root``; nothing where all is done. Raises InstallationError."""
    files = dict(_files(wanted))
    _refuse_what_is_not_ours(root, files)
    to_write = [path for path, text in files.items() if _stands(root / path) != text]
    for path in to_write:
        yield Step(f"write {root / path}", partial(_write, root / path, files[path]))
    config, secrets = root / CONFIGURATION / "config.yaml", root / CONFIGURATION / "secrets"
    if not config.exists():
        yield Step(f"write {config}, which observes and stops nothing", partial(_write, config, _example(wanted)))
    if not secrets.is_dir():
        yield Step(f"make {secrets}, mode 700, for the files with secrets", partial(_make_private, secrets))
    if SYSUSERS in to_write:
        if _is_running_system(root) and (root / UNITS / UNIT).exists():
            # While it runs, there is a user of that name, which is gone when it ends.
            yield _command("systemctl", "stop", SOCKET, UNIT)
        yield _command("systemd-sysusers", *_rooted(root), str(root / SYSUSERS))
    yield from _switch_on(root, wanted, units_changed=any(path.is_relative_to(UNITS) for path in to_write))


def _refuse_what_is_not_ours(root: Path, files: Mapping[Path, str]) -> None:
    for packaged in PACKAGED:
        if (root / packaged).exists():
            raise InstallationError(
                f"{root / packaged} belongs to a package, which has done all this; adapt it with: systemctl edit {UNIT}"
            )
    theirs = [
        str(root / path)
        for path, text in files.items()
        if _stands(root / path) not in {None, text} and not _is_ours(root / path)
    ]
    if theirs:
        raise InstallationError(
            f"changed by somebody since it was written: {', '.join(theirs)}; move the changes to a drop-in "
            f"(systemctl edit {UNIT}), remove the file, and install again"
        )


def _switch_on(root: Path, wanted: Wanted, *, units_changed: bool) -> Iterator[Step]:
    units = [SOCKET, UNIT] if wanted.with_socket else [UNIT]
    to_enable = [unit for unit in units if not _is_enabled(root, unit)]
    running = _is_running_system(root)
    if units_changed and running:
        yield _command("systemctl", "daemon-reload")
    if to_enable:
        yield _command("systemctl", *_rooted(root), "enable", *to_enable)
    if running and (units_changed or to_enable):
        if wanted.with_socket:
            # Not beside the service, which has the port.
            yield _command("systemctl", "stop", UNIT)
            yield _command("systemctl", "restart", SOCKET)
        yield _command("systemctl", "restart", UNIT)


def uninstall(root: Path, *, purge: bool) -> Iterator[Step]:
    """What there is to do to be no service any more; ``purge`` takes configuration, secrets and the database along."""
    running = _is_running_system(root)
    files = [path for path in _written(root) if _is_ours(path)]
    units = [unit for unit in (SOCKET, UNIT) if root / UNITS / unit in files]
    if units and running:
        yield _command("systemctl", "disable", "--now", *units)
    elif enabled := [unit for unit in units if _is_enabled(root, unit)]:
        yield _command("systemctl", *_rooted(root), "disable", *enabled)
    for path in files:
        yield Step(f"remove {path}", partial(_remove, path))
    if files and running:
        yield _command("systemctl", "daemon-reload")
    for folder in (CONFIGURATION, *STATE) if purge else ():
        if (root / folder).is_symlink() or (root / folder).exists():
            yield Step(f"remove {root / folder} and all that is in it", partial(_remove, root / folder))


def left_alone(root: Path) -> Sequence[Path]:
    """Files under our names that ``uninstall`` does not remove, for somebody has changed them."""
    return [path for path in _written(root) if not _is_ours(path)]


def systemd_version() -> int | None:
    """The version of systemd here; None where there is none."""
    try:
        said = subprocess.run(
            ["systemctl", "--version"],  # noqa: S607 - the system's own
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.match(r"systemd (\d+)", said)
    return int(found[1]) if found else None


def carry_out(steps: Sequence[Step], *, yes: bool) -> None:
    """Show the steps, and take them if that is wanted. Raises InstallationError."""
    if not steps:
        typer.echo("Nothing to do.")
        return
    for step in steps:
        typer.echo(step.says if yes else f"would {step.says}")
        if yes:
            try:
                step.do()
            except OSError as error:
                raise InstallationError(f"{error.filename}: {error.strerror}; are you root?") from error
    if not yes:
        typer.echo("Nothing has been done. Give the same command with --yes to do it.", err=True)


def _files(wanted: Wanted) -> Iterator[tuple[Path, str]]:
    folder = shipped("systemd")
    for name in (UNIT, TEMPLATE, SOCKET):
        text = (folder / name).read_text(encoding="utf-8")
        yield UNITS / name, _sealed(text.replace(_PROGRAM, str(wanted.command)))
    drop_ins = folder / f"{UNIT}.d"
    if wanted.systemd is not None and wanted.systemd >= _NOTIFY_RELOAD_SINCE:
        text = (drop_ins / "notify-reload.conf").read_text(encoding="utf-8")
        for unit in (UNIT, TEMPLATE):
            yield UNITS / f"{unit}.d/notify-reload.conf", _sealed(text)
    if wanted.shared is not None:
        text = (drop_ins / "shared-sqlite.conf").read_text(encoding="utf-8")
        yield UNITS / f"{UNIT}.d/shared-sqlite.conf", _sealed(text.replace(_SHARED, str(wanted.shared)))
        yield SYSUSERS, _sealed((folder / "zego-watchdog.sysusers.conf").read_text(encoding="utf-8"))


def _example(wanted: Wanted) -> str:
    """The commented configuration, with the places that the unit has for things."""
    places = {
        "sqlite:///zego-watchdog.db": f"sqlite:///{wanted.shared or '/var/lib/zego-watchdog'}/zego-watchdog.db",
        "server_secret_file: /etc/zego-watchdog/": "server_secret_file: ${CREDENTIALS_DIRECTORY}/zego_",
        "callback_secret_file: /etc/zego-watchdog/": "callback_secret_file: ${CREDENTIALS_DIRECTORY}/zego_",
    }
    text = shipped("config.yaml").read_text(encoding="utf-8")
    for before, after in places.items():
        if before not in text:
            raise ConfigError(f"the example configuration does not say {before}; install zego-watchdog again")
        text = text.replace(before, after)
    return text


def _sealed(text: str) -> str:
    return f"{_SEAL}{hashlib.sha256(text.encode()).hexdigest()[:16]}\n{text}"


def _is_ours(path: Path) -> bool:
    standing = _stands(path) or ""
    return standing == _sealed(standing.partition("\n")[2])


def _stands(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _written(root: Path) -> list[Path]:
    """The files that stand where ``install`` may have written them."""
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


def _command(*words: str) -> Step:
    return Step(f"run {' '.join(words)}", partial(_run, words))


def _run(words: Sequence[str]) -> None:
    try:
        subprocess.run(words, check=True)  # noqa: S603 - the system's own commands, with our own words
    except (OSError, subprocess.CalledProcessError) as error:
        raise InstallationError(f"{' '.join(words)}: {error}; mend that, and give the command again") from error


def _rooted(root: Path) -> tuple[str, ...]:
    return () if root == Path("/") else (f"--root={root}",)


def _is_running_system(root: Path) -> bool:
    """Whether ``root`` is this machine, and systemd runs it."""
    return root == Path("/") and Path("/run/systemd/system").is_dir()


def _is_enabled(root: Path, unit: str) -> bool:
    # In another root the links lead nowhere.
    return any((folder / unit).is_symlink() for folder in (root / UNITS).glob("*.wants"))
