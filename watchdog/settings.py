"""What can be configured: every key with its bounds and default, and the rules between keys.

``watchdog.config`` fills these from a file and the environment; tests and the demo build them directly. The example
``config.yaml`` explains each key to operators, and a test holds the two together.
"""

import ipaddress
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from watchdog.model import Mode, Verify
from watchdog.policy import VENDORS_NEWER_WINDOW_SECONDS
from watchdog.redaction import redact, scrub

_SECRET_FILE_LIMIT: Final = 4096
OTHERS: Final = 0o007
"""The permission bits of everybody who is neither owner nor group."""


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A secret and where it was read from."""

    path: Path
    content: SecretStr


@dataclass(frozen=True, slots=True)
class Origin:
    """Where values come from: what validation must know besides the values, passed as its context.

    ``variables`` says which (section, key) came from which variable instead of ``file``.
    """

    file: Path
    environ: Mapping[str, str]
    variables: Mapping[tuple[str, str], str]


def _read_secret(value: object, info: ValidationInfo) -> SecretFile | None:
    """Read the file that a ``…_file`` key names; errors name the file and never its content."""
    if isinstance(value, SecretFile):
        return value
    if not value:
        return None
    origin = info.context
    environ = origin.environ if isinstance(origin, Origin) else os.environ
    base = origin.file.parent if isinstance(origin, Origin) else Path()
    path = _secret_path(str(value), base, environ)
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{path} is not a regular file; put the secret into one")
            if status.st_mode & OTHERS:
                mode = stat.S_IMODE(status.st_mode)
                raise ValueError(f"{path} has mode {mode:o}, open to everybody on this machine; run: chmod 600 {path}")
            raw = file.read(_SECRET_FILE_LIMIT + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; create it, or correct the path") from error
    return SecretFile(path, SecretStr(_decode_secret(raw, path)))


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a pipe that nobody writes to without hanging for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def _secret_path(value: str, base: Path, environ: Mapping[str, str]) -> Path:
    credentials = "${CREDENTIALS_DIRECTORY}"
    if value.startswith(credentials):
        directory = environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            raise ValueError(f"{value} needs $CREDENTIALS_DIRECTORY, which systemd sets for units with LoadCredential=")
        return Path(directory + value.removeprefix(credentials))
    return base / value


def _decode_secret(raw: bytes, path: Path) -> str:
    if len(raw) > _SECRET_FILE_LIMIT:
        raise ValueError(f"{path} is larger than {_SECRET_FILE_LIMIT} bytes; it must hold the secret and nothing else")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        # Not chained: the exception carries the bytes.
        raise ValueError(f"{path} is not UTF-8 text; it must hold the secret and nothing else") from None
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise ValueError(f"{path} is empty; write the secret into it")
    redact(secret)
    return secret


SecretFromFile = Annotated[SecretFile | None, BeforeValidator(_read_secret)]


def _database_url(value: SecretStr) -> SecretStr:
    """Refuse what is neither SQLite nor PostgreSQL, and name the driver the way SQLAlchemy wants it."""
    url = value.get_secret_value()
    scheme, separator, rest = url.partition("://")
    match scheme if separator else "":
        case "sqlite":
            if not rest.startswith("/"):
                raise ValueError("a SQLite URL has three slashes before the path: sqlite:///zego-watchdog.db")
            if rest.partition("?")[0] in {"/", "/:memory:"}:
                raise ValueError("a database in memory ends with its process; name a file: sqlite:///zego-watchdog.db")
            return value
        case "postgresql" | "postgres" | "postgresql+psycopg":
            try:
                _ = urlsplit(url).port
            except ValueError:
                # Not chained: the exception carries a part of the URL.
                raise ValueError(
                    "its host and port cannot be read; write postgresql://user@host:5432/database, "
                    "and percent-encode what is special in a password, or use database.password_file"
                ) from None
            return SecretStr(f"postgresql+psycopg://{rest}")
        case _:
            raise ValueError(
                "must begin with sqlite:/// (three slashes, then a path) or postgresql://user@host/database"
            )


def _vendor_url(value: str) -> str:
    """Refuse plain HTTP to anything but this machine; an empty value stays empty."""
    if not value:
        return value
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or "@" in value:
        raise ValueError(f"{scrub(value)!r} is no plain address such as https://rtc-api.zego.im/")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ValueError(f"{value!r} would carry signatures in the clear; write https:// (http is for 127.0.0.1 only)")
    return value if value.endswith("/") else value + "/"


def _listen(value: str) -> str:
    """Refuse what is no host and port; an empty value stays empty."""
    host, _, port = value.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    is_port = port.isascii() and port.isdecimal() and int(port[:6]) < 1 << 16
    if value and (not bare or not is_port or (":" in bare) != (host != bare) or not set("/@ []").isdisjoint(bare)):
        raise ValueError(f"{value!r} is no host and port; write 127.0.0.1:8765, or [::1]:8765")
    return value


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_section(cls, value: object) -> object:
        """Allow a section whose keys are all commented out."""
        return {} if value == "" else value


class DatabaseConfig(Section):
    """Where the tables are, and how long a statement may take."""

    url: Annotated[SecretStr, AfterValidator(_database_url)] = SecretStr("sqlite:///zego-watchdog.db")
    """A relative SQLite path is relative to the working directory."""

    password_file: SecretFromFile = None
    """Holds the PostgreSQL password, so that it needs not stand in ``url``."""

    statement_timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 5
    """How long a statement, or waiting for a lock, may take."""

    connect_timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 5
    pool_size: Annotated[int, Field(ge=1, le=100)] = 4
    """PostgreSQL connections; SQLite always has one writer."""

    @model_validator(mode="after")
    def _password_has_a_place(self) -> Self:
        if self.password_file is None:
            return self
        parts = urlsplit(self.url.get_secret_value())
        if parts.scheme == "sqlite" or not parts.username or parts.password:
            raise ValueError(
                "password_file needs a url with a user and without a password: postgresql://user@host/database"
            )
        return self

    @property
    def sqlalchemy_url(self) -> SecretStr:
        """``url`` with the driver SQLAlchemy needs and the password from ``password_file``."""
        if self.password_file is None:
            return self.url
        parts = urlsplit(self.url.get_secret_value())
        user, _, host = parts.netloc.rpartition("@")
        password = quote(self.password_file.content.get_secret_value(), safe="")
        return SecretStr(urlunsplit(parts._replace(netloc=f"{user.removesuffix(':')}:{password}@{host}")))

    @property
    def safe_url(self) -> str:
        """``url`` as it may be shown."""
        return scrub(self.url.get_secret_value())

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_secret_value().startswith("sqlite:")


class AppConfig(Section):
    """One AppId of the ZEGO console and its ServerSecret, from a file or, through the environment, literally."""

    app_id: Annotated[int, Field(gt=0, lt=2**32)]
    server_secret_file: SecretFromFile = None
    server_secret: Annotated[SecretStr, Field(min_length=1)] | None = None
    callback_secret_file: SecretFromFile = None
    """Holds the secret that ZEGO signs callbacks with; without it callbacks of this app are refused."""

    callback_secret: Annotated[SecretStr, Field(min_length=1)] | None = None

    @field_validator("server_secret", "callback_secret")
    @classmethod
    def _not_in_the_file(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if isinstance(info.context, Origin) and ("zego", "apps") not in info.context.variables:
            raise ValueError(
                "a secret does not belong in this file; "
                f"put it into a file of its own with mode 600 and name that as {info.field_name}_file"
            )
        if value is not None:
            redact(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _has_one_secret(self) -> Self:
        if (self.server_secret is None) == (self.server_secret_file is None):
            raise ValueError(f"app {self.app_id} needs its secret once: set server_secret_file to the path of a file")
        if self.callback_secret is not None and self.callback_secret_file is not None:
            raise ValueError(f"app {self.app_id} has its callback secret twice: keep callback_secret_file alone")
        return self

    @property
    def secret(self) -> SecretStr:
        """The ServerSecret, wherever it came from."""
        if self.server_secret is not None:
            return self.server_secret
        if self.server_secret_file is not None:
            return self.server_secret_file.content
        raise AssertionError("validation lets no app pass without a secret")

    @property
    def callback_secrets(self) -> tuple[SecretStr, ...]:
        """The callback secrets that are accepted, wherever they came from; none: no callback is."""
        if self.callback_secret_file is not None:
            return (self.callback_secret_file.content,)
        return () if self.callback_secret is None else (self.callback_secret,)


class ZegoConfig(Section):
    """The vendor: which apps are watched, and where the two APIs are."""

    apps: tuple[AppConfig, ...] = ()
    """The first is the default app: the one of tasks whose ``app_id`` is null."""

    discover: bool = True
    """Whether a callback about a task that is not in the table puts it there."""

    asr_url: Annotated[str, Field(min_length=1), AfterValidator(_vendor_url)] = (
        "https://cloud-realtime-asr-api.zegotech.cn/"
    )
    rtc_url: Annotated[str, AfterValidator(_vendor_url)] = "https://rtc-api.zego.im/"
    """Empty: there is no occupancy API to ask."""

    bot_user_ids: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()
    """Patterns (``*``, ``?``, ``[a-z]``) of users who are not people."""

    @field_validator("bot_user_ids", mode="before")
    @classmethod
    def _no_patterns(cls, value: object) -> object:
        return () if value == "" else value

    @field_validator("bot_user_ids")
    @classmethod
    def _patterns_spare_somebody(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not pattern.strip("*?"):
                raise ValueError(f"{pattern!r} matches everybody, so every room would be empty; write like bot-*")
        return patterns

    @field_validator("apps", mode="before")
    @classmethod
    def _empty_list(cls, value: object) -> object:
        return () if value == "" else value

    @field_validator("apps")
    @classmethod
    def _apps_are_distinct(cls, apps: tuple[AppConfig, ...]) -> tuple[AppConfig, ...]:
        seen: set[int] = set()
        for app in apps:
            if app.app_id in seen:
                raise ValueError(f"app_id {app.app_id} is there twice; keep one of the two")
            seen.add(app.app_id)
        return apps


class PolicyConfig(Section):
    """When a room counts as abandoned; the names and defaults of ``watchdog.policy.Policy``."""

    mode: Mode = Mode.ENFORCE
    verify: Verify = Verify.REQUIRED
    max_idle_seconds: Annotated[float, Field(ge=30, le=1800)] = 150
    """The vendor's window for tasks that state none; its bounds are those of MaxIdleTime."""

    grace_seconds: Annotated[float, Field(ge=0, le=1800)] = 45
    never_joined_grace_seconds: Annotated[float, Field(ge=0, le=1800)] = 90
    safety_margin_seconds: Annotated[float, Field(ge=0, le=600)] = 20
    confirm_seconds: Annotated[float, Field(ge=0, le=300)] = 5
    """Nothing is due before a room has been empty for this long under our own eyes."""

    hint_max_age_seconds: Annotated[float, Field(gt=0, le=86400)] = 300
    """A hint older than this allows no unverified stop."""

    verification_max_age_seconds: Annotated[float, Field(gt=0, le=60)] = 5
    """The vendor's answer is asked for again when it is older than this right before the request."""

    gap_seconds: Annotated[float, Field(gt=0, le=3600)] = 60
    """After so long without a sweep, older hints allow no unverified stop."""

    rejoin_watch_seconds: Annotated[float, Field(ge=0, le=86400)] = 600
    """How long after a stop people who come back to the room are noticed; 0 does not look."""

    @model_validator(mode="after")
    def _grace_fits_the_window(self) -> Self:
        needed = self.grace_seconds + self.safety_margin_seconds
        if needed > self.max_idle_seconds:
            raise ValueError(
                f"grace_seconds {self.grace_seconds:g} + safety_margin_seconds {self.safety_margin_seconds:g} = "
                f"{needed:g} is more than max_idle_seconds {self.max_idle_seconds:g}: ZEGO would always be first; "
                f"lower grace_seconds to {max(0, self.max_idle_seconds - self.safety_margin_seconds):g} or less"
            )
        return self


class ScheduleConfig(Section):
    """How often the daemon looks."""

    poll_seconds: Annotated[float, Field(ge=0.1, le=60)] = 5
    """The upper bound; it wakes earlier for a known due time."""

    occupancy_poll_seconds: Annotated[float, Field(ge=0, le=3600)] = 15
    """How often ZEGO is asked about every active room, at most; 0 waits for others' hints."""


class StopConfig(Section):
    """How requests are sent: paced, bounded in time, and under a lease."""

    requests_per_second: Annotated[float, Field(ge=0, le=10000)] = 10
    """Stop requests per AppId; 0 is unlimited."""

    occupancy_requests_per_second: Annotated[float, Field(ge=0, le=10000)] = 10
    """DescribeUserNum requests per AppId, ten rooms each; 0 is unlimited."""

    concurrency: Annotated[int, Field(ge=1, le=1000)] = 32
    request_timeout_seconds: Annotated[float, Field(gt=0, le=120)] = 8
    """The total deadline of one request, connecting included."""

    lease_seconds: Annotated[float, Field(gt=0, le=600)] = 20
    """How long a claimed task belongs to the daemon that claimed it."""

    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 20
    blocked_retry_seconds: Annotated[float, Field(ge=1, le=3600)] = 30
    """Pause for a whole AppId after a credentials or configuration error."""

    shutdown_seconds: Annotated[float, Field(ge=0, le=600)] = 10
    """How long requests in flight may take to finish when the daemon is told to end."""

    @model_validator(mode="after")
    def _lease_outlives_the_request(self) -> Self:
        if self.lease_seconds <= self.request_timeout_seconds + 2:
            raise ValueError(
                f"lease_seconds {self.lease_seconds:g} must exceed request_timeout_seconds "
                f"{self.request_timeout_seconds:g} by more than 2, or another daemon could repeat a request in flight; "
                f"raise lease_seconds above {self.request_timeout_seconds + 2:g}"
            )
        return self


class HttpConfig(Section):
    """The daemon's own HTTP server."""

    listen: Annotated[str, AfterValidator(_listen)] = ""
    """Host and port; empty: no server."""

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of ``listen``, the host without brackets; None for no server."""
        if not self.listen:
            return None
        host, _, port = self.listen.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)


class LogConfig(Section):
    """What is written to stderr; ``auto`` is JSON unless that is a terminal."""

    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Section):
    """All of it. ``watchdog.config.load`` makes one from a file and the environment."""

    database: DatabaseConfig = DatabaseConfig()
    zego: ZegoConfig = ZegoConfig()
    policy: PolicyConfig = PolicyConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    stop: StopConfig = StopConfig()
    http: HttpConfig = HttpConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        # One text for all of them, so that an operator sees every problem at once.
        if problems := tuple(self._disagreements()):
            raise ValueError("\n".join(problems))
        return self

    def _disagreements(self) -> Iterator[str]:
        policy, poll = self.policy, self.schedule.poll_seconds
        if policy.mode is Mode.ENFORCE and not self.zego.apps:
            yield (
                "policy.mode is enforce, but zego.apps is empty, so no stop could be signed; "
                "add an app with its server_secret_file to zego.apps, or set policy.mode to observe"
            )
        if policy.verify is not Verify.OFF and not self.zego.rtc_url:
            yield (
                f"policy.verify is {policy.verify}, but zego.rtc_url is empty, so nobody can be asked who is in a "
                "room; set zego.rtc_url, or set policy.verify to off to trust the application's hints alone"
            )
        slowest = poll + policy.confirm_seconds + policy.safety_margin_seconds
        if slowest > policy.max_idle_seconds:
            yield (
                f"schedule.poll_seconds {poll:g} + policy.confirm_seconds {policy.confirm_seconds:g} + "
                f"policy.safety_margin_seconds {policy.safety_margin_seconds:g} = {slowest:g} is more than "
                f"policy.max_idle_seconds {policy.max_idle_seconds:g}: ZEGO would be first; lower schedule.poll_seconds"
            )
        if policy.gap_seconds < 2 * poll:
            yield (
                f"policy.gap_seconds {policy.gap_seconds:g} is less than twice schedule.poll_seconds {poll:g}, so that "
                f"every sweep would follow a gap; raise policy.gap_seconds to {2 * poll:g} or more"
            )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed and may still surprise; one line each."""
        policy = self.policy
        needed = policy.grace_seconds + policy.safety_margin_seconds
        if needed <= VENDORS_NEWER_WINDOW_SECONDS:
            return ()
        warning = (
            f"policy.grace_seconds {policy.grace_seconds:g} + policy.safety_margin_seconds "
            f"{policy.safety_margin_seconds:g} = {needed:g} is more than {VENDORS_NEWER_WINDOW_SECONDS}, ZEGO's newer "
            "default window: tasks started without MaxIdleTime may be ended by ZEGO first; lower policy.grace_seconds, "
            "or set max_idle_seconds on each task"
        )
        return (warning,)
