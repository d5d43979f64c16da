"""Checks of the program, its configuration and its secrets."""

import importlib.metadata
import os
import platform
import pwd
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import watchdog
from watchdog.cli.checks.findings import Finding, fail, ok, split, warn
from watchdog.config.settings import AppConfig, Config
from watchdog.core.model import Mode

SERVICE_USER: Final = "zego-watchdog"
"""The fixed user of a service that shares its SQLite file with the application."""
_SERVICE_FILES: Final = Path("/etc/zego-watchdog")


def check_installation() -> Iterator[Finding]:
    ours = Path(__file__).parents[2]
    imported = Path(watchdog.__file__ or "").parent
    namesake = _namesake()
    own = "install zego-watchdog into its own virtual environment"
    if imported != ours or not hasattr(watchdog, "__version__"):
        yield fail("package", f"`import watchdog` finds {imported}, which is not this program", own)
    elif namesake:
        yield warn(
            "package",
            f"the file-watching library watchdog {namesake} is installed too; it has the same package name",
            own,
        )
    else:
        yield ok("package", f"zego-watchdog {watchdog.__version__} in {ours}")
    yield ok("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _namesake() -> str | None:
    try:
        return importlib.metadata.version("watchdog")
    except importlib.metadata.PackageNotFoundError:
        return None


def check_configuration(file: Path, config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    yield ok("configuration", f"{file.absolute()} is valid")
    if not config.zego.apps:
        yield warn(
            "secrets",
            "zego.apps is empty: ZEGO cannot be asked, and no task can be stopped",
            "add your AppId with its server_secret_file to zego.apps",
        )
    for app in config.zego.apps:
        yield ok("secrets", f"AppId {app.app_id}: {_origin(app)}")
    if config.policy.mode is Mode.OBSERVE:
        yield warn(
            "policy",
            "mode is observe: stops are recorded as would_stop, and no request is sent",
            "set policy.mode to enforce when the recorded stops look right",
        )
    for warning in config.warnings:
        yield warn(warning.partition(".")[0], *split(warning))
    if not any(warning.startswith("policy.") for warning in config.warnings) and config.policy.mode is Mode.ENFORCE:
        yield ok("policy", f"mode enforce, verify {config.policy.verify}; fits ZEGO's windows of 120 and 150 seconds")
    yield _journal(config.journal(environ))


def _journal(folder: Path | None) -> Finding:
    if folder is None:
        kept = "in memory only, unless systemd provides a directory for the service (StateDirectory=)"
        return ok(
            "answers", f"while the database is unavailable, answers are kept {kept}; or set stop.journal_directory"
        )
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return ok("answers", f"while the database is unavailable, answers are kept in {folder}")
    return warn(
        "answers",
        f"this user cannot write to {folder}: while the database is unavailable, answers are in memory only",
        "create it for the daemon's user, or set stop.journal_directory to another one",
    )


def _origin(app: AppConfig) -> str:
    if app.server_secret_file is None:
        return "its secret is in the environment"
    path = app.server_secret_file.path
    return f"its secret is in {path}, mode {stat.S_IMODE(path.stat().st_mode):o}"


def check_service_user(file: Path, config: Config) -> Iterator[Finding]:
    """Whether the service's user can use the SQLite file; only root can ask that.

    A dynamic user has its own directory, which systemd gives it: there is nothing to ask.
    """
    database = config.database.sqlite_file
    is_its_own = database is not None and database.resolve().is_relative_to("/var/lib/private")
    if database is None or is_its_own or os.geteuid() != 0 or not file.is_relative_to(_SERVICE_FILES):
        return
    try:
        user = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return
    places = [path for path in (database.parent, database) if path.exists()]
    groups = os.getgrouplist(SERVICE_USER, user.pw_gid)
    closed = [path for path in places if not _may_write(path, user, groups)]
    if closed:
        yield fail(
            "service",
            f"its user {SERVICE_USER} may not write {', '.join(map(str, closed))}",
            f"run: zego-watchdog systemd install --sqlite-dir {database.parent} --yes",
        )
    else:
        yield ok("service", f"its user {SERVICE_USER} may write {database}")


def _may_write(path: Path, user: pwd.struct_passwd, groups: Sequence[int]) -> bool:
    test = ["test", "-r", str(path), "-a", "-w", str(path)]
    as_user = subprocess.run(test, user=user.pw_uid, group=user.pw_gid, extra_groups=groups, check=False, cwd="/")  # noqa: S603 - a path of the configuration
    return as_user.returncode == 0
