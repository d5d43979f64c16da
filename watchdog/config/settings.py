"""What can be configured: every key with its bounds and default, and the rules within a section.

``loader`` fills these from a file and the environment; tests and the demo build them directly. The example
``config.yaml`` explains each key to operators; a test compares the two.
"""

import difflib
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from watchdog.config import rules_between
from watchdog.config.addresses import (
    absolute_path,
    database_url,
    host_name,
    is_loopback,
    listen_address,
    network,
    vendor_url,
    webhook_url,
    with_driver,
)
from watchdog.config.policy_settings import PolicyConfig
from watchdog.config.secret_files import SecretFromFile, from_environment_only, given
from watchdog.config.section import Section
from watchdog.core.events import EventType
from watchdog.core.kinds import DEFAULT_KIND, KINDS
from watchdog.core.webhook import keys
from watchdog.logs.redaction import redact, scrub

ALL_EVENTS: Final = "all"

_EMPTY_TOO = BeforeValidator(lambda value: () if value == "" else value)
"""For a list whose key has no value."""

_VendorUrl = Annotated[str, Field(min_length=1), AfterValidator(vendor_url)]
_AppSecret = Annotated[Annotated[SecretStr, Field(min_length=1)] | None, from_environment_only("zego", "apps")]


class DatabaseConfig(Section):
    url: Annotated[SecretStr, AfterValidator(database_url)] = SecretStr("sqlite:///zego-watchdog.db")
    password_file: SecretFromFile = None
    statement_timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 5
    connect_timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 5
    pool_size: Annotated[int, Field(ge=1, le=100)] = 4
    transaction_pooling: bool = False

    @model_validator(mode="after")
    def _password_has_a_place(self) -> Self:
        if self.password_file is None:
            return self
        parts = urlsplit(with_driver(self.url.get_secret_value()))
        if parts.scheme == "sqlite" or not parts.username or parts.password:
            raise ValueError(
                "password_file needs a url with a user and without a password; write postgresql://user@host/database"
            )
        return self

    @property
    def sqlalchemy_url(self) -> SecretStr:
        """``url`` with the driver SQLAlchemy needs and the password from ``password_file``."""
        url = with_driver(self.url.get_secret_value())
        if self.password_file is None:
            return SecretStr(url)
        parts = urlsplit(url)
        user, _, host = parts.netloc.rpartition("@")
        password = quote(self.password_file.content.get_secret_value(), safe="")
        return SecretStr(urlunsplit(parts._replace(netloc=f"{user.removesuffix(':')}:{password}@{host}")))

    @property
    def safe_url(self) -> str:
        """``url`` as it was written, but without a password."""
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
    """One AppId of the ZEGO console and its secrets: each in a file, or as a value in the environment."""

    app_id: Annotated[int, Field(gt=0, lt=2**32)]
    server_secret_file: SecretFromFile = None
    server_secret: _AppSecret = None
    callback_secret_file: SecretFromFile = None
    callback_secret: _AppSecret = None

    @model_validator(mode="after")
    def _has_one_secret(self) -> Self:
        if (self.server_secret is None) == (self.server_secret_file is None):
            raise ValueError(f"app {self.app_id} needs exactly one secret; set server_secret_file to its path")
        if self.callback_secret is not None and self.callback_secret_file is not None:
            raise ValueError(f"app {self.app_id} has two callback secrets; keep callback_secret_file only")
        return self

    @property
    def secret(self) -> SecretStr:
        if (secret := given(self.server_secret, self.server_secret_file)) is None:
            raise AssertionError("validation refuses an app without a secret")
        return secret

    @property
    def callback_secrets(self) -> tuple[SecretStr, ...]:
        """The accepted callback secrets; without one no callback is accepted."""
        secret = given(self.callback_secret, self.callback_secret_file)
        return () if secret is None else (secret,)


class UrlsConfig(Section):
    """The addresses of the APIs of other kinds of tasks: agents have one for each region."""

    agent: _VendorUrl = KINDS["agent"].url
    digital_human: _VendorUrl = KINDS["digital_human"].url
    player: _VendorUrl = KINDS["player"].url
    recording: _VendorUrl = KINDS["recording"].url


class ZegoConfig(Section):
    """The vendor: the watched apps, and the addresses of its APIs."""

    apps: Annotated[tuple[AppConfig, ...], _EMPTY_TOO] = ()
    discover: bool = True
    asr_url: _VendorUrl = KINDS[DEFAULT_KIND].url
    rtc_url: Annotated[str, AfterValidator(vendor_url)] = "https://rtc-api.zego.im/"
    urls: UrlsConfig = UrlsConfig()
    bot_user_ids: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], _EMPTY_TOO] = ()

    @field_validator("bot_user_ids")
    @classmethod
    def _patterns_match_only_bots(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not pattern.strip("*?"):
                raise ValueError(f"{pattern!r} matches every user, so every room would be empty; write e.g. bot-*")
        return patterns

    @field_validator("apps")
    @classmethod
    def _apps_are_distinct(cls, apps: tuple[AppConfig, ...]) -> tuple[AppConfig, ...]:
        seen: set[int] = set()
        for app in apps:
            if app.app_id in seen:
                raise ValueError(f"app_id {app.app_id} is given twice; keep one of the two")
            seen.add(app.app_id)
        return apps


class ScheduleConfig(Section):
    poll_seconds: Annotated[float, Field(ge=0.1, le=60)] = 5
    occupancy_poll_seconds: Annotated[float, Field(ge=0, le=3600)] = 15
    adopt_seconds: Annotated[float, Field(ge=0, le=86400)] = 0


class StopConfig(Section):
    requests_per_second: Annotated[float, Field(ge=0, le=10000)] = 10
    occupancy_requests_per_second: Annotated[float, Field(ge=0, le=10000)] = 10
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 32
    request_timeout_seconds: Annotated[float, Field(gt=0, le=120)] = 8
    lease_seconds: Annotated[float, Field(gt=0, le=600)] = 20
    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 20
    blocked_retry_seconds: Annotated[float, Field(ge=1, le=3600)] = 30
    shutdown_seconds: Annotated[float, Field(ge=0, le=600)] = 10
    journal_directory: Annotated[str, AfterValidator(absolute_path)] = ""
    """Where answers are kept while the database is unavailable; empty: see ``Config.journal``."""

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
    """How many tasks may be stopped in a minute on hints alone; names and defaults as in ``guard.Limits``."""

    unverified_per_minute: Annotated[float, Field(ge=0, le=1_000_000)] = 60
    unverified_share: Annotated[float, Field(ge=0, le=1)] = 0.25


class RetentionConfig(Section):
    """For how many days old rows are kept; 0 keeps them for ever."""

    tasks_days: Annotated[int, Field(ge=0, le=36500)] = 90
    attempts_days: Annotated[int, Field(ge=0, le=36500)] = 400
    events_days: Annotated[int, Field(ge=0, le=36500)] = 30
    spells_days: Annotated[int, Field(ge=0, le=36500)] = 90

    @field_validator("attempts_days")
    @classmethod
    def _a_week_is_read(cls, days: int) -> int:
        if 0 < days < 7:
            raise ValueError(f"{days} is too few: status and check read the last 7 days; write 7 or more, or 0")
        return days

    @field_validator("events_days")
    @classmethod
    def _a_day_is_for_delivery(cls, days: int) -> int:
        if days == 1:
            raise ValueError("1 is too few: an event is delivered within 24 hours; write 2 or more, or 0")
        return days


class HttpConfig(Section):
    listen: Annotated[str, AfterValidator(listen_address)] = ""
    token_file: SecretFromFile = None
    token: Annotated[Annotated[SecretStr, Field(min_length=1)] | None, from_environment_only("http", "token")] = None
    page: bool = False
    page_hosts: Annotated[tuple[Annotated[str, AfterValidator(host_name)], ...], _EMPTY_TOO] = ()

    @model_validator(mode="after")
    def _has_one_token(self) -> Self:
        if self.token is not None and self.token_file is not None:
            raise ValueError("the token is given twice; keep token_file only")
        return self

    @property
    def bearer_token(self) -> SecretStr | None:
        """None: no token is needed."""
        return given(self.token, self.token_file)

    @property
    def is_exposed(self) -> bool:
        return self.address is not None and not is_loopback(self.address[0])

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of ``listen``, the host without brackets; None for no server."""
        if not self.listen:
            return None
        host, _, port = self.listen.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)


class NotifyConfig(Section):
    """Which events are written, and the webhook that they are sent to."""

    url: Annotated[SecretStr, AfterValidator(webhook_url)] = SecretStr("")
    secret_file: SecretFromFile = None
    secret: Annotated[Annotated[SecretStr, Field(min_length=1)] | None, from_environment_only("notify", "secret")] = (
        None
    )
    events: Annotated[tuple[str, ...], _EMPTY_TOO] = ()
    request_timeout_seconds: Annotated[float, Field(gt=0, le=120)] = 15
    concurrency: Annotated[int, Field(ge=1, le=100)] = 8
    allowed_networks: Annotated[
        tuple[Annotated[IPv4Network | IPv6Network, BeforeValidator(network)], ...], _EMPTY_TOO
    ] = ()

    @field_validator("events")
    @classmethod
    def _events_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = [ALL_EVENTS, *EventType]
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise ValueError(
                    f"{name!r} is no event; " + (f"did you mean {near[0]}?" if near else f"write {', '.join(known)}")
                )
        return names

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.secret is not None and self.secret_file is not None:
            raise ValueError("the secret is given twice; keep secret_file only")
        if self.url.get_secret_value() and not self.events:
            raise ValueError("url is set, but events is empty, so nothing would be sent; write events: [all]")
        secret = given(self.secret, self.secret_file)
        if self.url.get_secret_value() and secret is None:
            raise ValueError(
                "url is set, but secret_file is not, so the receiver could not tell our requests from others; make a "
                "secret with: echo whsec_$(openssl rand -base64 32), and set secret_file to its file (mode 600)"
            )
        # Empty: a command that needs the database only has not read it.
        if secret is not None and secret.get_secret_value():
            try:
                keys(secret.get_secret_value())
            except ValueError as error:
                where = "secret" if self.secret_file is None else f"secret_file {self.secret_file.path}"
                raise ValueError(f"{where}: {error}") from None
            for line in secret.get_secret_value().splitlines():
                redact(line)
        return self

    @property
    def types(self) -> tuple[EventType, ...]:
        """The types that are written."""
        return tuple(EventType) if ALL_EVENTS in self.events else tuple(map(EventType, dict.fromkeys(self.events)))

    @property
    def signing_keys(self) -> tuple[bytes, ...]:
        """What requests are signed with; two while the secret is rotated, none without a secret."""
        secret = given(self.secret, self.secret_file)
        return () if secret is None else keys(secret.get_secret_value())

    @property
    def host(self) -> str:
        """The receiver's host, which is not secret; empty without a URL."""
        return urlsplit(self.url.get_secret_value()).hostname or ""

    @property
    def is_in_clear(self) -> bool:
        """Whether others on the way can read what is sent."""
        return self.url.get_secret_value().lower().startswith("http:") and not is_loopback(self.host)


class LogConfig(Section):
    """Format and level of the log; ``auto`` is JSON unless stderr is a terminal or the journal."""

    format: Literal["auto", "json", "console", "journal"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Section):
    """The whole configuration. ``watchdog.config.loader.load`` makes it from a file and the environment."""

    database: DatabaseConfig = DatabaseConfig()
    zego: ZegoConfig = ZegoConfig()
    policy: PolicyConfig = PolicyConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    stop: StopConfig = StopConfig()
    guard: GuardConfig = GuardConfig()
    retention: RetentionConfig = RetentionConfig()
    http: HttpConfig = HttpConfig()
    notify: NotifyConfig = NotifyConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        # One text for all, so that an operator sees every problem at once.
        if problems := tuple(rules_between.conflicts(self)):
            raise ValueError("\n".join(problems))
        return self

    def journal(self, environ: Mapping[str, str]) -> Path | None:
        """The directory for answers that the database cannot take yet; None if there is none."""
        if self.stop.journal_directory:
            return Path(self.stop.journal_directory)
        # Set by systemd; of several directories the first is the service's.
        if state := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
            return Path(state)
        file = self.database.sqlite_file
        return None if file is None else file.absolute().parent

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(rules_between.warnings(self))
