"""What ``zego-watchdog check`` looks at: one finding each, with what to do about it. Changes nothing, stops nothing."""

import asyncio
import importlib.metadata
import os
import platform
import re
import ssl
import stat
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, assert_never
from urllib.parse import urlsplit

import watchdog
from watchdog import SCHEMA_VERSION
from watchdog import config as configuration
from watchdog.clock import Clock
from watchdog.config.settings import AppConfig, Config
from watchdog.core.model import Mode
from watchdog.core.outcomes import ReplyClass, classify
from watchdog.errors import ConfigError, DatabaseError, RequestError, WatchdogError
from watchdog.shipped import shipped
from watchdog.store.reports import health, privileges, situation
from watchdog.wiring import database as opening
from watchdog.wiring import from_config
from watchdog.zego.client import ZegoClient

NO_SUCH_ROOM: Final = "zego-watchdog-check"
"""A room that surely is not there; asking about it tests everything but reads nothing."""

_CLOCK_SECONDS: Final = 60.0
"""ZEGO tolerates ten minutes; a clock that is one minute off is out of order."""

_DATABASE_CLOCK_SECONDS: Final = 2.0
_HINT_SECONDS: Final = 3600.0
_RETURNS_SHARE: Final = 0.05
_WAL_RESET: Final = ((3, 7, 0), (3, 51, 2))
"""The SQLite versions in which several writers may, rarely, damage a database in WAL mode."""


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Blame(StrEnum):
    """What a failure is due to; decides the exit code."""

    CONFIGURATION = "configuration"
    REACHABILITY = "reachability"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was found, and, unless it is well, what to do."""

    level: Level
    subject: str
    found: str
    todo: str = ""
    blame: Blame | None = None


def exit_code(findings: Sequence[Finding]) -> int:
    """0 without a failure, 78 for the configuration, 75 where all that failed was out of reach, else 1."""
    blames = {finding.blame for finding in findings if finding.level is Level.FAIL}
    if not blames:
        return 0
    if Blame.CONFIGURATION in blames:
        return ConfigError.exit_code
    return RequestError.exit_code if blames == {Blame.REACHABILITY} else WatchdogError.exit_code


async def examine(path: Path | None, environ: Mapping[str, str], clock: Clock, *, offline: bool) -> list[Finding]:
    """Look at everything that can be looked at; ``offline`` leaves the vendor out, not the database."""
    findings = [*_installation()]
    try:
        file = configuration.find(path, environ)
        config = configuration.load(path, environ)
    except ConfigError as error:
        return [*findings, _failed("configuration", error, "correct this, then check again")]
    findings += _configuration(file, config, environ)
    findings += await asyncio.to_thread(lambda: list(_database(config, clock)))
    if not offline:
        findings += await _vendor(config, clock)
    return findings


def _ok(subject: str, found: str) -> Finding:
    return Finding(Level.OK, subject, found)


def _warn(subject: str, found: str, todo: str) -> Finding:
    return Finding(Level.WARN, subject, found, todo)


def _fail(subject: str, found: str, todo: str, blame: Blame = Blame.OTHER) -> Finding:
    return Finding(Level.FAIL, subject, found, todo, blame)


def _failed(subject: str, error: WatchdogError, todo: str) -> Finding:
    blames = {ConfigError.exit_code: Blame.CONFIGURATION, RequestError.exit_code: Blame.REACHABILITY}
    return _fail(subject, str(error), todo, blames.get(error.exit_code, Blame.OTHER))


def _installation() -> Iterator[Finding]:
    ours = Path(__file__).parents[2]
    imported = Path(watchdog.__file__ or "").parent
    namesake = _namesake()
    own = "install zego-watchdog into a virtual environment of its own"
    if imported != ours or not hasattr(watchdog, "__version__"):
        yield _fail("package", f"`import watchdog` finds {imported}, which is not this program", own)
    elif namesake:
        yield _warn(
            "package",
            f"the file-watching library watchdog {namesake} is installed beside this program under the same name",
            own,
        )
    else:
        yield _ok("package", f"zego-watchdog {watchdog.__version__} in {ours}")
    yield _ok("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _namesake() -> str | None:
    try:
        return importlib.metadata.version("watchdog")
    except importlib.metadata.PackageNotFoundError:
        return None


def _configuration(file: Path, config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    yield _ok("configuration", f"{file.absolute()} is valid")
    if not config.zego.apps:
        yield _warn(
            "secrets",
            "zego.apps is empty: nothing can be asked of ZEGO, and nothing stopped",
            "add your AppId with its server_secret_file to zego.apps",
        )
    for app in config.zego.apps:
        yield _ok("secrets", f"AppId {app.app_id}: {_origin(app)}")
    if config.policy.mode is Mode.OBSERVE:
        yield _warn(
            "policy",
            "mode is observe: stops are recorded as would_stop, and none is sent",
            "set policy.mode to enforce once the record looks right",
        )
    for warning in config.warnings:
        found, _, todo = warning.rpartition("; ")
        yield _warn(warning.partition(".")[0], found or warning, todo)
    if not any(warning.startswith("policy.") for warning in config.warnings) and config.policy.mode is Mode.ENFORCE:
        yield _ok("policy", f"mode enforce, verify {config.policy.verify}; fits ZEGO's windows of 120 and 150 seconds")
    if config.http.listen:
        yield _ok("http", _served(config))
    yield _journal(config.journal(environ))


def _journal(folder: Path | None) -> Finding:
    if folder is None:
        kept = "in memory only, unless systemd keeps a directory for the service (StateDirectory=)"
        return _ok("answers", f"while the database is away, answers are kept {kept}; stop.journal_directory names one")
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return _ok("answers", f"while the database is away, answers are kept in {folder}")
    return _warn(
        "answers",
        f"{folder} is no directory that this user may write to: while the database is away, answers are in memory only",
        "create it for the daemon's user, or name another one as stop.journal_directory",
    )


def _served(config: Config) -> str:
    """What the daemon's HTTP server is for; Prometheus alone is a good reason to have one."""
    callbacks = [str(app.app_id) for app in config.zego.apps if app.callback_secrets]
    taken = f"callbacks of AppId {', '.join(callbacks)}" if callbacks else "no callbacks, for no app has their secret"
    token = "" if config.http.bearer_token is None else " with the token"
    return f"{config.http.listen}: /metrics{token}; {taken}"


def _origin(app: AppConfig) -> str:
    if app.server_secret_file is None:
        return "its secret is in the environment"
    path = app.server_secret_file.path
    return f"its secret is in {path}, mode {stat.S_IMODE(path.stat().st_mode):o}"


def _database(config: Config, clock: Clock) -> Iterator[Finding]:
    try:
        with opening.opened(config) as database:
            yield from _role(privileges.privileges(database))
            before = clock.time()
            vitals = health.vitals(database)
            offset = vitals.now.timestamp() - (before + clock.time()) / 2
            yield _ok("database", f"{config.database.safe_url}: {vitals.server}, schema {SCHEMA_VERSION}")
            if config.database.is_sqlite:
                yield judge_sqlite(vitals.server.removeprefix("SQLite "))
            yield from _judge_vitals(vitals, _expected_triggers(database.dialect.name), config)
            yield _database_clock(offset, config)
            yield _daemons(health.all_daemons(database)[1])
            yield _hints(health.hints(database))
            yield from _learned(*situation.learned(database), config)
    except ConfigError as error:
        yield _failed("database", error, "see `zego-watchdog migrate --help`")
    except DatabaseError as error:
        yield _failed(
            "database", error, f"see that {config.database.safe_url} is right, and there, and may be written to"
        )


def _role(found: privileges.Privileges | None) -> Iterator[Finding]:
    if found is None:
        return
    if found.missing:
        todo = f"grant it: GRANT {found.missing[0]} TO {found.role}; docs/roles.sql has every right that is needed"
        lacks = f"{found.role} lacks {'; '.join(found.missing)}"
        yield _fail("role", lacks, todo, Blame.CONFIGURATION)
    elif found.is_superuser:
        yield _warn(
            "role",
            f"{found.role} is a superuser: whoever gets at the daemon's password gets the whole server",
            "let the daemon log in with a role of its own: docs/sql-roles.md",
        )
    else:
        yield _ok("role", f"{found.role} has every right it needs")


def judge_sqlite(version: str) -> Finding:
    """Whether that version of SQLite can be trusted with several writers."""
    first, last = _WAL_RESET
    if not first <= tuple(int(part) for part in re.findall(r"\d+", version)) <= last:
        return _ok("sqlite", version)
    return _warn(
        "sqlite",
        f"SQLite {version} has a rare fault (3.7.0 to 3.51.2) that can damage a database to which several processes "
        "write at once, as the application and the daemon do",
        "keep backups, and use SQLite 3.51.3 or later, or PostgreSQL, where that matters",
    )


def _judge_vitals(vitals: health.Vitals, expected: frozenset[str], config: Config) -> Iterator[Finding]:
    if not vitals.writable:
        yield _fail("database", "it is read-only", "point database.url at the primary server", Blame.CONFIGURATION)
    if vitals.journal_mode not in {None, "wal"}:
        yield _fail(
            "database",
            f"its journal mode is {vitals.journal_mode}: readers and writers would lock each other out",
            "move the file to a local disk; network file systems do not allow the mode wal",
        )
    if missing := sorted(expected - vitals.triggers):
        yield _fail(
            "triggers",
            f"missing or switched off: {', '.join(missing)}; hints mean nothing without them",
            f"create them again from migrations/sql, or restore {config.database.safe_url} from a backup",
        )
    else:
        yield _ok("triggers", f"all {len(expected)} are there")


def _expected_triggers(dialect: str) -> frozenset[str]:
    """The names in the migrations themselves, so that there is no second list to forget."""
    names: set[str] = set()
    for file in sorted((shipped("migrations") / "sql").glob(f"*_{dialect}.sql")):
        for verb, name in re.findall(r"^(CREATE|DROP) TRIGGER (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE):
            names.add(name) if verb == "CREATE" else names.discard(name)
    return frozenset(names)


def _database_clock(offset: float, config: Config) -> Finding:
    if config.database.is_sqlite:
        return _ok("clock", "SQLite has this machine's; ZEGO's is looked at below")
    if abs(offset) <= _DATABASE_CLOCK_SECONDS:
        return _ok("clock", f"the database's differs from this machine's by {offset:+.1f} s")
    return _warn(
        "clock",
        f"the database's differs from this machine's by {offset:+.1f} s; stored times are the database's, "
        "those in the log this machine's",
        "let both follow the same time server",
    )


def _daemons(daemons: Sequence[health.DaemonRow]) -> Finding:
    alive = [daemon for daemon in daemons if daemon.alive]
    if not alive:
        return _warn("daemon", "none is alive: nothing is being watched", "start one: zego-watchdog run")
    return _ok("daemon", f"{len(alive)} alive: {', '.join(f'{one.instance} ({one.mode})' for one in alive)}")


def _hints(hints: health.Hints) -> Finding:
    update = "write user_count whenever people come or go: UPDATE zego_tasks SET user_count = ? WHERE room_id = ?"
    if not hints.active:
        return _ok("hints", "no task is active, so none is awaited")
    if hints.newest_at is None:
        return _warn("hints", f"none of {hints.active} active tasks ever had one, so none of them can be due", update)
    age = (hints.now - hints.newest_at).total_seconds()
    if age > _HINT_SECONDS:
        return _warn(
            "hints",
            f"the newest of {hints.active} active tasks is {age / 3600:.1f} hours old: has the feed died?",
            update,
        )
    if hints.with_hint < hints.active:
        return _warn("hints", f"{hints.active - hints.with_hint} of {hints.active} active tasks have none", update)
    return _ok("hints", f"all {hints.active} active tasks have one, the newest {age:.0f} s old")


def _learned(returns: situation.Returns, windows: situation.Windows | None, config: Config) -> Iterator[Finding]:
    """What stops of the past say of the configuration; nothing where there were none."""
    if returns.watched:
        share = f"people came back after {returns.returned} of {returns.watched} stops of the last 24 hours"
        if returns.returned > returns.watched * _RETURNS_SHARE:
            yield _warn("returns", share, "raise policy.grace_seconds: rooms that look abandoned are not")
        else:
            yield _ok("returns", share)
    if windows is not None:
        seen = (
            f"ZEGO ended {windows.count} tasks by itself, after {windows.minimum:.0f} s at least and "
            f"{windows.median:.0f} s in the median; policy.max_idle_seconds is {config.policy.max_idle_seconds:g}"
        )
        if windows.is_faster_than_configured:
            todo = f"set policy.max_idle_seconds to {windows.median:.0f} or less; then ZEGO is expected in time"
            yield _warn("window", f"{seen}: ZEGO is faster than configured", todo)
        else:
            yield _ok("window", seen)


async def _vendor(config: Config, clock: Clock) -> list[Finding]:
    findings = [await _asr_host(config.zego.asr_url, config.stop.request_timeout_seconds)]
    if not config.zego.rtc_url:
        return [*findings, _ok("rooms", "zego.rtc_url is empty: the application's hints are trusted alone")]
    client = from_config.zego_client(config, clock)
    try:
        for app in config.zego.apps:
            findings += await _ask_about_a_room(client, app.app_id)
    finally:
        await client.aclose()
    return findings


async def _ask_about_a_room(client: ZegoClient, app_id: int) -> list[Finding]:
    """Whether ZEGO takes our signature, by the one request that changes nothing."""
    try:
        reply = (await client.user_counts(app_id, [NO_SUCH_ROOM])).reply
        clock = _zegos_clock(reply.clock_offset_seconds)
        if classify(reply) is ReplyClass.CLOCK:
            # The client has learned the offset: whether the secret is right shows in the second answer.
            reply = (await client.user_counts(app_id, [NO_SUCH_ROOM])).reply
    except RequestError as error:
        return [_failed("rooms", error, "allow this machine to reach zego.rtc_url: name resolution, firewall, proxy?")]
    said = f"AppId {app_id}: ZEGO answers code {reply.code or '-'} ({reply.message or f'HTTP {reply.http_status}'})"
    if reply.request_id:
        said += f", RequestId {reply.request_id}"
    match classify(reply):
        case ReplyClass.STOPPED:
            return [_ok("rooms", f"AppId {app_id}: ZEGO accepts the secret and says who is in a room"), *clock]
        case ReplyClass.CREDENTIALS:
            todo = "the ServerSecret is not this AppId's: take it from the ZEGO console again"
            return [_fail("rooms", said, todo, Blame.CONFIGURATION), *clock]
        case ReplyClass.CONFIGURATION | ReplyClass.REJECTED | ReplyClass.GONE:
            todo = "compare the AppId with the ZEGO console, and see that its services are switched on"
            return [_fail("rooms", said, todo, Blame.CONFIGURATION), *clock]
        case ReplyClass.CLOCK:
            todo = "set this machine's clock: ZEGO refuses signatures that are more than ten minutes off"
            return [_fail("rooms", said, todo), *clock]
        case ReplyClass.THROTTLED:
            return [_warn("rooms", said, "lower stop.occupancy_requests_per_second, or check again later"), *clock]
        case ReplyClass.TRANSIENT:
            return [_fail("rooms", said, "check again later", Blame.REACHABILITY), *clock]
        case unexpected:
            assert_never(unexpected)


def _zegos_clock(offset: float | None) -> list[Finding]:
    if offset is None:
        return []
    if abs(offset) <= _CLOCK_SECONDS:
        return [_ok("clock", f"ZEGO's differs from this machine's by {round(offset):+d} s")]
    return [
        _warn(
            "clock",
            f"ZEGO's differs from this machine's by {round(offset):+d} s; the daemon makes up for it",
            "let this machine follow a time server",
        )
    ]


async def _asr_host(url: str, timeout_seconds: float) -> Finding:
    """Whether the host that stops tasks can be reached. No request is made: every one of them might stop something."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if (proxy := urllib.request.getproxies().get(parts.scheme)) and not urllib.request.proxy_bypass(host):
        return _ok("stops", f"requests to {host} go through the proxy {urlsplit(proxy).hostname}; not tried")
    encrypted = parts.scheme == "https"
    port = parts.port or (443 if encrypted else 80)
    try:
        async with asyncio.timeout(timeout_seconds):
            _, writer = await asyncio.open_connection(
                host, port, ssl=ssl.create_default_context() if encrypted else None
            )
            writer.close()
            await writer.wait_closed()
    except (OSError, UnicodeError) as error:
        late = isinstance(error, TimeoutError)
        reason = f"no connection within {timeout_seconds:g} s" if late else str(error)
        todo = "allow this machine to reach zego.asr_url: name resolution, firewall, certificates?"
        return _fail("stops", f"{host} port {port}: {reason}", todo, Blame.REACHABILITY)
    return _ok("stops", f"{host} port {port} can be reached" + (", encrypted" if encrypted else ""))
