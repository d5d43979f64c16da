"""What can be configured: every key with its bounds and default, and the rules between keys.

``loader`` fills these from a file and the environment; tests and the demo build them directly. The example
``config.yaml`` explains each key to operators, and a test holds the two together.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from watchdog.config.secret_files import Origin, SecretFromFile
from watchdog.core.model import Mode, Verify
from watchdog.core.policy import VENDORS_NEWER_WINDOW_SECONDS
from watchdog.logs.redaction import redact, scrub

_BELONGS_ELSEWHERE: Final = (
    "a secret does not belong in this file; put it into a file of its own with mode 600 and name that as {}_file"
)


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


def _absolute(value: str) -> str:
    """Refuse a path that means another directory to each process; an empty value stays empty."""
    if value and not Path(value).is_absolute():
        raise ValueError(f"{value!r} is no absolute path; write like /var/lib/zego-watchdog")
    return value


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

    @property
    def sqlite_file(self) -> Path | None:
        """The file of a SQLite database (``sqlite:///file``, ``sqlite:////absolute/file``)."""
        if not self.is_sqlite:
            return None
        return Path(self.url.get_secret_value().removeprefix("sqlite:///").partition("?")[0])


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
            raise ValueError(_BELONGS_ELSEWHERE.format(info.field_name))
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
    """When a room counts as abandoned; the names and defaults of ``watchdog.core.policy.Policy``."""

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

    journal_directory: Annotated[str, AfterValidator(_absolute)] = ""
    """Where answers wait for a database that is away; empty: ``Config.journal`` finds a place."""

    @model_validator(mode="after")
    def _lease_outlives_the_request(self) -> Self:
        if self.lease_seconds <= self.request_timeout_seconds + 2:
            raise ValueError(
                f"lease_seconds {self.lease_seconds:g} must exceed request_timeout_seconds "
                f"{self.request_timeout_seconds:g} by more than 2, or another daemon could repeat a request in flight; "
                f"raise lease_seconds above {self.request_timeout_seconds + 2:g}"
            )
        return self


class GuardConfig(Section):
    """How many tasks may be stopped within a minute on hints alone; the names and defaults of ``guard.Limits``."""

    unverified_per_minute: Annotated[float, Field(ge=0, le=1_000_000)] = 60
    """By all daemons together; 0 is no limit."""

    unverified_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Of the active tasks, but no less than five; 0 is no limit."""


class RetentionConfig(Section):
    """For how many days rows are kept whose time is over; 0 is for ever."""

    tasks_days: Annotated[int, Field(ge=0, le=36500)] = 90
    attempts_days: Annotated[int, Field(ge=0, le=36500)] = 400

    @field_validator("attempts_days")
    @classmethod
    def _a_week_is_read(cls, days: int) -> int:
        if 0 < days < 7:
            raise ValueError(f"{days} is too few: the last 7 days are read by status and check; write 7 or more, or 0")
        return days


class HttpConfig(Section):
    """The daemon's own HTTP server."""

    listen: Annotated[str, AfterValidator(_listen)] = ""
    """Host and port; empty: no server."""

    token_file: SecretFromFile = None
    """Holds what a scraper must show to see ``/metrics`` and ``/readyz``; callbacks and ``/healthz`` need none."""

    token: Annotated[SecretStr, Field(min_length=1)] | None = None

    @field_validator("token")
    @classmethod
    def _not_in_the_file(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if isinstance(info.context, Origin) and ("http", "token") not in info.context.variables:
            raise ValueError(_BELONGS_ELSEWHERE.format(info.field_name))
        if value is not None:
            redact(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _has_one_token(self) -> Self:
        if self.token is not None and self.token_file is not None:
            raise ValueError("the token is there twice: keep token_file alone")
        return self

    @property
    def bearer_token(self) -> SecretStr | None:
        """The token, wherever it came from; None: nobody needs one."""
        return self.token if self.token_file is None else self.token_file.content

    @property
    def is_exposed(self) -> bool:
        """Whether other machines can reach the server."""
        return self.address is not None and not _is_loopback(self.address[0])

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of ``listen``, the host without brackets; None for no server."""
        if not self.listen:
            return None
        host, _, port = self.listen.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)


class LogConfig(Section):
    """What is written, and where; ``auto`` is JSON unless stderr is a terminal, or the journal."""

    format: Literal["auto", "json", "console", "journal"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Section):
    """All of it. ``watchdog.config.loader.load`` makes one from a file and the environment."""

    database: DatabaseConfig = DatabaseConfig()
    zego: ZegoConfig = ZegoConfig()
    policy: PolicyConfig = PolicyConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    stop: StopConfig = StopConfig()
    guard: GuardConfig = GuardConfig()
    retention: RetentionConfig = RetentionConfig()
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

    def journal(self, environ: Mapping[str, str]) -> Path | None:
        """The directory for answers that the database cannot take yet; None where there is no place for them."""
        if self.stop.journal_directory:
            return Path(self.stop.journal_directory)
        # systemd's own, which may be several; the first is the service's.
        if state := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
            return Path(state)
        file = self.database.sqlite_file
        return None if file is None else file.absolute().parent

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed and may still surprise; one line each, which begins with the section it is about."""
        return tuple(self._surprises())

    def _surprises(self) -> Iterator[str]:
        policy, http = self.policy, self.http
        needed = policy.grace_seconds + policy.safety_margin_seconds
        if needed > VENDORS_NEWER_WINDOW_SECONDS:
            yield (
                f"policy.grace_seconds {policy.grace_seconds:g} + policy.safety_margin_seconds "
                f"{policy.safety_margin_seconds:g} = {needed:g} is more than {VENDORS_NEWER_WINDOW_SECONDS}, ZEGO's "
                "newer default window: tasks started without MaxIdleTime may be ended by ZEGO first; lower "
                "policy.grace_seconds, or set max_idle_seconds on each task"
            )
        if http.is_exposed and http.bearer_token is None:
            yield (
                f"http.listen {http.listen} can be reached from other machines, and http.token_file is empty: /metrics "
                "and /readyz answer everybody; set http.token_file, or listen on 127.0.0.1"
            )
        if not http.listen and any(app.callback_secrets for app in self.zego.apps):
            yield (
                "http.listen is empty, and an app has a callback secret: no callback is taken unless systemd passes a "
                "socket; set http.listen, or remove the app's callback_secret_file"
            )
