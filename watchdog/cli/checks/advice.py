"""What to do about an error of the database: adds the next step that only the configuration knows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from watchdog.config.settings import DatabaseConfig
from watchdog.errors import ConfigError, DatabaseError, WatchdogError

_AS_ROOT: Final = "run the command as root or as the daemon's user"
_STEPS: Final = (
    (
        "password authentication failed",
        "correct the password: in database.password_file if it is set, otherwise in database.url",
    ),
    ("no password supplied", "put the password into a file of its own, and set database.password_file to its path"),
    ("no pg_hba.conf entry", "allow this user, database and host in the server's pg_hba.conf"),
    ("connection refused", "start PostgreSQL, or correct the host and the port in database.url"),
    ("no such file or directory", "start PostgreSQL, or correct the host in database.url"),
    ("resolve host", "correct the host in database.url, or this machine's DNS"),
    ("could not translate host name", "correct the host in database.url, or this machine's DNS"),
    ("timeout expired", "check the host and the port in database.url, and the firewalls in between"),
    ("network is unreachable", "check the host in database.url and this machine's network"),
    ("too many clients", "raise the server's max_connections, or lower database.pool_size"),
    ("disk is full", "free space on the disk of the database"),
    ("database is locked", "another process writes to the database; try again"),
)
"""What PostgreSQL, libpq or SQLite says, in lower case, and what to do about it. Their class stays."""

_MISCONFIGURED: Final = (
    (
        "file is not a database",
        "correct the path in database.url; if the file was damaged, restore it from a backup",
    ),
    ("no such table", "zego-watchdog check lists what is missing; restore it from a backup"),
    ("no such column", "zego-watchdog check lists what is missing; restore it from a backup"),
)
"""The same, for what no repetition of a command mends: ConfigError."""


@contextmanager
def advised(config: DatabaseConfig, *, for_daemon: bool = False) -> Iterator[None]:
    """Say what to do about each ConfigError and DatabaseError of the block that does not say it itself.

    ``for_daemon``: the exit codes stay. After a ConfigError systemd does not start the daemon again, but a file that is
    just being restored is a database again in a minute.
    """
    try:
        yield
    except (ConfigError, DatabaseError) as error:
        raise _advised(error, config, for_daemon=for_daemon) from error


def _advised(error: WatchdogError, config: DatabaseConfig, *, for_daemon: bool) -> WatchdogError:
    said = str(error)
    kind, todo = type(error), ""
    lowered = said.lower()
    if "there is no file" in said and config.sqlite_file is not None:
        return ConfigError(_missing(config.sqlite_file))
    if "unable to open database file" in lowered and config.sqlite_file is not None:
        todo = _unopened(config.sqlite_file)
    elif any(pattern in lowered for pattern, _ in _MISCONFIGURED):
        kind, todo = type(error) if for_daemon else ConfigError, _step(_MISCONFIGURED, lowered)
    elif isinstance(error, DatabaseError):
        todo = _step(_STEPS, lowered) or _postgresql_name(lowered)
    return kind(f"{said}; {todo}" if todo else said)


def _step(steps: tuple[tuple[str, str], ...], lowered: str) -> str:
    return next((step for pattern, step in steps if pattern in lowered), "")


def _postgresql_name(lowered: str) -> str:
    if "does not exist" not in lowered:
        return ""
    if 'database "' in lowered:
        return "create the database with createdb, or correct its name in database.url"
    if 'role "' in lowered:
        return "create the role (docs/roles.sql), or correct the user in database.url"
    return ""


def _missing(file: Path) -> str:
    folder, where = file.absolute().parent, _relative_to(file)
    if not folder.is_dir():
        return f"database.url: there is no directory {folder}{where}; create it, or correct the path"
    return f"database.url: there is no file {file.absolute()}{where}; create it with: zego-watchdog migrate"


def _relative_to(file: Path) -> str:
    if file.is_absolute():
        return ""
    return (
        f" (sqlite:///{file} is relative to the working directory {Path.cwd()}, and not to the configuration; to be "
        f"independent of it, write four slashes and the absolute path)"
    )


def _unopened(file: Path) -> str:
    folder = file.absolute().parent
    try:
        if file.is_dir():
            return "it is a directory; correct the path in database.url"
        if not folder.is_dir():
            return f"there is no directory {folder}; create it, or correct the path in database.url"
    except PermissionError:
        pass
    return f"if this user may not open it, {_AS_ROOT}"


def no_directory(file: Path) -> ConfigError | None:
    """The error of a SQLite file that cannot be created, because its directory does not exist."""
    try:
        return None if file.absolute().parent.is_dir() else ConfigError(_missing(file))
    except PermissionError:
        return None
