"""The directory of a SQLite file that the service shares with the application, for ``systemd install --sqlite-dir``.

Both must be able to create files there (SQLite's -wal and -shm), so the directory and the files belong to the group of
the service. The owners stay.
"""

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from watchdog.cli.checks.installation import SERVICE_USER as USER
from watchdog.cli.commands.steps import Step
from watchdog.config import load
from watchdog.errors import ConfigError, InstallationError

FILE: Final = "zego-watchdog.db"
_OF_THE_SYSTEM: Final = {
    *("/", "/bin", "/boot", "/dev", "/etc", "/lib", "/media", "/mnt", "/opt", "/proc", "/run", "/sbin", "/srv"),
    *("/sys", "/usr", "/usr/local", "/var", "/var/lib", "/var/log"),
}
_DIRECTORY: Final = 0o2070
"""Its group may create files, and they get its group."""
_FILE: Final = 0o060


def check_directory(root: Path, folder: Path, configuration: Path) -> None:
    """Raise InstallationError if the service cannot use ``folder``, ConfigError if its database is elsewhere."""
    if str(folder) in _OF_THE_SYSTEM:
        raise InstallationError(f"{folder} is a directory of the system; give the database one of its own below it")
    inside = _inside(root, folder)
    if inside.exists() and not inside.is_dir():
        raise InstallationError(f"{folder} is not a directory; give the directory of the file: {folder.parent}")
    for parent in folder.parents:
        closed = _inside(root, parent)
        if parent != Path("/") and closed.is_dir() and not closed.stat().st_mode & stat.S_IXOTH:
            mode = stat.S_IMODE(closed.stat().st_mode)
            raise InstallationError(
                f"the service's user cannot pass through {parent}, which has mode {mode:o}; run: chmod o+x {parent}, "
                "or choose another directory"
            )
    if configuration.exists():
        _database_in(folder, configuration)


def _database_in(folder: Path, configuration: Path) -> Path:
    """The file in ``folder`` that the configuration names. Raises ConfigError if it names another database."""
    settings = load(configuration, {}, database_only=True).database
    if settings.sqlite_file is None or settings.sqlite_file.parent != folder:
        raise ConfigError(
            f"{configuration} has database.url {settings.safe_url}, which is not in {folder}; set it to "
            f"sqlite:///{folder}/{FILE}, or leave out --sqlite-dir"
        )
    return settings.sqlite_file


def sharing_steps(root: Path, folder: Path, configuration: Path) -> Iterator[Step]:
    """The steps that create what is missing and set its rights; none if all is well. ``root`` is the system's."""
    inside = _inside(root, folder)
    file = _database_in(folder, configuration) if configuration.exists() else folder / FILE
    if not inside.is_dir():
        yield Step(f"create {inside}, group {USER}, mode 2770", partial(_create_directory, root, inside))
    elif not _is_shared(root, inside, _DIRECTORY):
        yield Step(f"give {inside} to the group {USER}, mode g+rwxs", partial(_share, root, inside, _DIRECTORY))
    database = _inside(root, file)
    if not database.exists():
        yield Step(f"create {database}, empty, group {USER}, mode 660", partial(_create_file, root, database))
    for part in (database, *(database.with_name(database.name + suffix) for suffix in ("-wal", "-shm"))):
        if part.exists() and not _is_shared(root, part, _FILE):
            yield Step(f"give {part} to the group {USER}, mode g+rw", partial(_share, root, part, _FILE))


def has_user(root: Path) -> bool:
    return _ids(root) is not None


def _inside(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _ids(root: Path) -> tuple[int, int] | None:
    """The number of the service's user and of its group; None before systemd-sysusers has made them."""
    found = []
    for name in ("passwd", "group"):
        try:
            lines = (root / "etc" / name).read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return None
        found += [int(line.split(":")[2]) for line in lines if line.startswith(f"{USER}:")][:1]
    return (found[0], found[1]) if len(found) == 2 else None


def _is_shared(root: Path, path: Path, rights: int) -> bool:
    ids, status = _ids(root), path.stat()
    return ids is not None and status.st_gid == ids[1] and status.st_mode & rights == rights


def _share(root: Path, path: Path, rights: int) -> None:
    os.chown(path, -1, _required_ids(root)[1])
    path.chmod(stat.S_IMODE(path.stat().st_mode) | rights)


def _create_directory(root: Path, path: Path) -> None:
    path.mkdir(parents=True)
    os.chown(path, 0, _required_ids(root)[1])
    path.chmod(0o2770)


def _create_file(root: Path, path: Path) -> None:
    """Create the file for the service, which makes the tables: it creates no file outside of its own directory."""
    path.touch(exist_ok=False)
    os.chown(path, *_required_ids(root))
    path.chmod(0o660)


def _required_ids(root: Path) -> tuple[int, int]:
    ids = _ids(root)
    if ids is None:
        raise InstallationError(f"there is no user {USER} in {root}; run: systemd-sysusers, then repeat the command")
    return ids
