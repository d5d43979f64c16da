"""Where the configuration comes from, what is refused, and that every error says what to do."""

import errno
import json
import os
import re
import stat
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import sqlalchemy as sa
import yaml
from pydantic import SecretStr
from pydantic_core import to_jsonable_python

from watchdog import config
from watchdog.config import loader, secret_files
from watchdog.config.loader import Config, find, load
from watchdog.config.policy_settings import PolicyConfig
from watchdog.config.secret_files import _no_credential
from watchdog.config.settings import AppConfig, DatabaseConfig, ZegoConfig
from watchdog.core.events import EventType
from watchdog.core.model import Mode, Verify
from watchdog.core.policy import Policy
from watchdog.errors import ConfigError
from watchdog.logs.redaction import scrub

EXAMPLE = Path(__file__).parents[2] / "config.yaml"
SECRET = "9193cc662a4c0ec135ec71fb57194b38"  # the vendor's published example


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    # Its owner may not be allowed to write what is there.
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def problems(text: str, environ: dict[str, str] | None = None) -> list[str]:
    """Return every line of the error for a ./config.yaml with this text."""
    write(Path("config.yaml"), text)
    with pytest.raises(ConfigError) as caught:
        load(None, environ or {})
    assert caught.value.exit_code == 78
    return str(caught.value).splitlines()


def observed(text: str = "", environ: dict[str, str] | None = None) -> Config:
    """Return the configuration of a ./config.yaml with this text, in observe mode, which needs no app."""
    write(Path("config.yaml"), text)
    return load(None, {"ZEGO_WATCHDOG_POLICY__MODE": "observe", **(environ or {})})


# Places of the file


def test_the_places_are_searched_in_order(here: Path) -> None:
    given = write(here / "given.yaml", "policy: {mode: observe, grace_seconds: 1}")
    named = write(here / "named.yaml", "policy: {mode: observe, grace_seconds: 2}")
    write(here / "config.yaml", "policy: {mode: observe, grace_seconds: 3}")
    environ = {"ZEGO_WATCHDOG_CONFIG": str(named)}
    assert load(given, environ).policy.grace_seconds == 1
    assert load(None, environ).policy.grace_seconds == 2
    assert load(None, {"ZEGO_WATCHDOG_CONFIG": ""}).policy.grace_seconds == 3
    assert config.find(None, {}) == Path("config.yaml")
    assert loader.DEFAULT_PATHS[1] == Path("/etc/zego-watchdog/config.yaml")


@pytest.mark.skipif(loader.DEFAULT_PATHS[1].exists(), reason="this machine has a configuration")
@pytest.mark.usefixtures("here")
def test_without_any_file_the_places_are_listed() -> None:
    with pytest.raises(ConfigError, match=r"--config.*\$ZEGO_WATCHDOG_CONFIG.*config\.yaml.*/etc/zego-watchdog/config"):
        load(None, {})


def forbidden(self: Path) -> bool:
    """What ``Path.exists`` does in a directory that this user may not enter."""
    raise PermissionError(errno.EACCES, "Permission denied", str(self))


def test_a_working_directory_that_may_not_be_entered_is_passed_over(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = write(here / "etc.yaml", "policy: {mode: observe}")
    monkeypatch.setattr(loader, "DEFAULT_PATHS", (Path("config.yaml"), there))
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: forbidden(path) if path == Path("config.yaml") else exists(path))
    assert find(None, {}) == there
    with pytest.raises(
        ConfigError, match=r"config\.yaml: cannot be read: Permission denied; correct its path or its perm"
    ):
        find(Path("config.yaml"), {})


def test_a_missing_file_is_reported_with_its_origin(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"x\.yaml: there is no such file; it was requested by --config"):
        load(here / "x.yaml", {})
    with pytest.raises(ConfigError, match=r"requested by \$ZEGO_WATCHDOG_CONFIG"):
        load(None, {"ZEGO_WATCHDOG_CONFIG": str(here / "x.yaml")})


def test_a_directory_is_no_file(here: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(here, {})


# The file


@pytest.mark.usefixtures("here")
def test_empty_files_and_sections_mean_the_defaults() -> None:
    assert observed("").stop == Config.model_fields["stop"].default
    assert observed("stop:\nlog:\n  #level: info\n").log.level == "info"
    assert observed("zego:\n  apps:\n").zego.apps == ()


@pytest.mark.usefixtures("here")
def test_off_is_a_word_and_yes_is_not_a_number() -> None:
    assert observed("policy: {verify: off}").policy.verify is Verify.OFF
    (line,) = problems("policy: {mode: observe, grace_seconds: yes}")
    assert line.startswith("config.yaml: policy.grace_seconds: 'yes' is refused; write a number")
    assert line.endswith(" (default: 45)")


@pytest.mark.usefixtures("here")
def test_all_problems_are_reported_at_once() -> None:
    text = """
    policy: {grace_secnds: 45, max_idle_seconds: 10, mode: enforced}
    database: {url: "mysql://u:hunter22@h/d"}
    loging: {}
    stop: {lease_seconds: 5}
    """
    environ = {"ZEGO_WATCHDOG_LOG__LEVEL": "loud", "ZEGO_WATCHDOG_LOG__FROMAT": "json"}
    assert sorted(problems(text, environ)) == [
        "ZEGO_WATCHDOG_LOG__FROMAT: unknown variable; did you mean ZEGO_WATCHDOG_LOG__FORMAT?",
        ("ZEGO_WATCHDOG_LOG__LEVEL: 'loud' is refused; write 'debug', 'info', 'warning' or 'error' (default: info)"),
        (
            "config.yaml: database.url: is no address of SQLite or PostgreSQL; write sqlite:///FILE (three slashes, "
            "then a path) or postgresql://user@host/database"
        ),
        "config.yaml: loging: unknown key; did you mean log?",
        "config.yaml: policy.grace_secnds: unknown key; did you mean grace_seconds?",
        "config.yaml: policy.max_idle_seconds: '10' is refused; write 30 or more (default: 150)",
        "config.yaml: policy.mode: 'enforced' is refused; write 'enforce' or 'observe' (default: enforce)",
        (
            "config.yaml: stop: lease_seconds 5 must exceed request_timeout_seconds 8 by more than 2, "
            "or another daemon could repeat a request in flight; raise lease_seconds above 10"
        ),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("grace_seconds: 5", "config.yaml: grace_seconds: unknown key; did you mean policy.grace_seconds?"),
        ("log: {zzz: 5}", "config.yaml: log.zzz: unknown key; the keys here are: format, level"),
        ("policy: 5", "config.yaml: policy: must have keys and values, indented below it"),
        ("policy: [5]", "config.yaml: policy: must have keys and values, indented below it"),
        ("- 5", "config.yaml: must have sections such as policy: and database:; see the commented example"),
        ("zego: {apps: [{server_secret_file: x}]}", "config.yaml: zego.apps[0].app_id: is missing; add it"),
        ("zego: {apps: 7}", "config.yaml: zego.apps: is refused; write a list"),
        ("policy: {\n  mode: observe,\n  a: b: c}", "config.yaml:3:7: "),
        ("policy:\n  mode: observe\n  mode: enforce", "config.yaml:3:3: mode is given twice; correct this line"),
        (
            "zego:\n  apps: []\n    - app_id: 1",
            (
                "config.yaml:3:5: expected <block end>, but found '<block sequence start>'; correct the indentation or "
                "the punctuation of this line or the one above"
            ),
        ),
        ("log: {}\nlog: {}", "config.yaml:2:1: log is given twice; correct this line"),
        (
            "policy: {gap_seconds: .inf}",
            "config.yaml: policy.gap_seconds: '.inf' is refused; write a number (default: 60)",
        ),
        (
            "policy: {gap_seconds: inf}",
            "config.yaml: policy.gap_seconds: 'inf' is refused; write a finite number (default: 60)",
        ),
        (
            "policy: {gap_seconds: nan}",
            "config.yaml: policy.gap_seconds: 'nan' is refused; write a finite number (default: 60)",
        ),
        (
            "stop: {concurrency: 1.5}",
            "config.yaml: stop.concurrency: '1.5' is refused; write a whole number (default: 32)",
        ),
        ("a\x00b: 1", "config.yaml: contains characters that YAML does not allow; remove them"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_is_wrong_in_the_file_is_named(text: str, line: str) -> None:
    assert any(problem.startswith(line) for problem in problems(text)), problems(text)


def test_a_file_in_another_encoding_is_named(here: Path) -> None:
    (here / "config.yaml").write_bytes("log: {level: \xe9}".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"config\.yaml: is not UTF-8 text"):
        load(None, {})


# The environment


@pytest.mark.usefixtures("here")
def test_the_environment_wins_over_the_file() -> None:
    environ = {
        "ZEGO_WATCHDOG_DATABASE__URL": "sqlite:////var/lib/w.db",
        "ZEGO_WATCHDOG_POLICY__GRACE_SECONDS": "50",
        "ZEGO_WATCHDOG_ZEGO__RTC_URL": "",
        "ZEGO_WATCHDOG_POLICY__VERIFY": "off",
        "HOME": "/nowhere",
    }
    loaded = observed("policy: {grace_seconds: 40, confirm_seconds: 3}", environ)
    assert loaded.database.sqlalchemy_url.get_secret_value() == "sqlite:////var/lib/w.db"
    assert (loaded.policy.grace_seconds, loaded.policy.confirm_seconds) == (50, 3)
    assert (loaded.zego.rtc_url, loaded.policy.verify) == ("", Verify.OFF)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ZEGO_WATCHDOG_POLICY_GRACE_SECONDS", "did you mean ZEGO_WATCHDOG_POLICY__GRACE_SECONDS?"),
        ("zego_watchdog_database__url", "did you mean ZEGO_WATCHDOG_DATABASE__URL?"),
        ("ZEGO_WATCHDOG_CONFIGURATION", "did you mean ZEGO_WATCHDOG_CONFIG?"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_variable_that_would_do_nothing_is_refused(name: str, hint: str) -> None:
    assert problems("policy: {mode: observe}", {name: "x"}) == [f"{name}: unknown variable; {hint}"]


@pytest.mark.parametrize(
    "name",
    [
        *("ZEGO_WATCHDOG_PORT", "ZEGO_WATCHDOG_SERVICE_HOST", "ZEGO_WATCHDOG_SERVICE_PORT"),
        *("ZEGO_WATCHDOG_SERVICE_PORT_HTTP", "ZEGO_WATCHDOG_PORT_8765_TCP", "ZEGO_WATCHDOG_PORT_8765_TCP_PROTO"),
        *("ZEGO_WATCHDOG_PORT_8765_TCP_PORT", "ZEGO_WATCHDOG_PORT_8765_TCP_ADDR"),
        # Of a service that is called zego-watchdog-metrics.
        *("ZEGO_WATCHDOG_METRICS_SERVICE_HOST", "ZEGO_WATCHDOG_METRICS_PORT_9090_UDP_ADDR"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_kubernetes_sets_for_a_service_of_this_name_is_not_meant_for_us(name: str) -> None:
    assert observed("policy: {mode: observe}", {name: "tcp://10.0.0.1:8765"}).policy.mode == "observe"


@pytest.mark.usefixtures("here")
def test_apps_may_come_from_the_environment_with_their_secrets() -> None:
    apps = [{"app_id": 12345, "server_secret": SECRET}, {"app_id": 7, "server_secret": "other-é"}]
    loaded = observed("zego: {apps: [{app_id: 1}]}", {"ZEGO_WATCHDOG_ZEGO__APPS": json.dumps(apps)})
    assert [(app.app_id, app.secret.get_secret_value()) for app in loaded.zego.apps] == [
        (12345, SECRET),
        (7, "other-é"),
    ]


@pytest.mark.parametrize(
    "value",
    [
        f'[{{"app_id": 0, "server_secret": "{SECRET}"}}]',
        f'[{{"app_id": 1, "server_secret": "{SECRET}"',
        f'[{{"app_id": 1, "secret": "{SECRET}"}}]',
        f'["{SECRET}"]',
        SECRET,
        f'{{"app_id": 1, "server_secret": "{SECRET}"}}',
        f'[{{"app_id": 1, "server_secret": ["{SECRET}"]}}]',
    ],
)
@pytest.mark.usefixtures("here")
def test_broken_apps_in_the_environment_are_named_without_their_secrets(value: str) -> None:
    lines = problems("policy: {mode: observe}", {"ZEGO_WATCHDOG_ZEGO__APPS": value})
    assert all(line.startswith("ZEGO_WATCHDOG_ZEGO__APPS") for line in lines)
    assert SECRET not in "".join(lines)


# Secrets


APP = "zego: {apps: [{app_id: 12345, server_secret_file: secret}]}"


def test_a_secret_is_read_from_a_file_beside_the_configuration(tmp_path: Path) -> None:
    write(tmp_path / "secret", SECRET + "\n")
    loaded = load(write(tmp_path / "config.yaml", APP, mode=0o644), {})
    (app,) = loaded.zego.apps
    assert app.secret.get_secret_value() == SECRET
    assert app.server_secret_file is not None
    assert app.server_secret_file.path == tmp_path / "secret"
    assert loaded.policy.mode is Mode.ENFORCE


def test_a_secret_is_read_from_systemds_credentials(tmp_path: Path) -> None:
    write(tmp_path / "zego", SECRET)
    text = "zego: {apps: [{app_id: 1, server_secret_file: '${CREDENTIALS_DIRECTORY}/zego'}]}"
    path = write(tmp_path / "config.yaml", text)
    loaded = load(path, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert loaded.zego.apps[0].secret.get_secret_value() == SECRET
    with pytest.raises(
        ConfigError, match=r"server_secret_file: .*: there is no file .*/secrets/zego, .*LoadCredential"
    ):
        load(path, {})


def test_a_user_who_may_not_look_into_the_secrets_is_told_to_be_root(tmp_path: Path) -> None:
    class Closed(type(tmp_path)):  # type: ignore[misc]  # the class of paths on this system
        def exists(self, **_: object) -> bool:
            raise PermissionError

    said = _no_credential("${CREDENTIALS_DIRECTORY}/zego_db_password", Closed("/etc/zego-watchdog/secrets/db_password"))
    assert "may not read /etc/zego-watchdog/secrets/db_password" in said
    assert said.endswith("; run the command as root")


@pytest.mark.usefixtures("here")
def test_a_secret_that_this_user_may_not_read_is_not_to_be_created(monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path("secret"), SECRET)
    monkeypatch.setattr(secret_files, "_open_without_waiting", lambda path, _: forbidden(Path(path)))
    (line,) = problems(APP)
    assert "secret cannot be read: Permission denied; run this as root or as the daemon's user, or let" in line


def test_a_command_of_the_database_reads_no_other_secret(tmp_path: Path) -> None:
    write(tmp_path / "open", SECRET, mode=0o644)
    write(tmp_path / "password", "hunter22")
    text = """
    database: {url: "postgresql://me@h/db", password_file: password}
    zego: {apps: [{app_id: 1, server_secret_file: open, callback_secret_file: nowhere}]}
    http: {token_file: "${CREDENTIALS_DIRECTORY}/zego_token"}
    """
    path = write(tmp_path / "config.yaml", text)
    assert "hunter22" in load(path, {}, database_only=True).database.sqlalchemy_url.get_secret_value()
    with pytest.raises(ConfigError) as refused:
        load(path, {})
    assert len(str(refused.value).splitlines()) == 3
    (tmp_path / "password").unlink()
    with pytest.raises(ConfigError, match=r"password_file: .*password cannot be read"):
        load(path, {}, database_only=True)


@pytest.mark.parametrize(("config", "folder"), [("config.yaml", "secrets"), ("north.yaml", "north.secrets")])
def test_a_command_reads_the_secret_where_the_units_credentials_come_from(
    tmp_path: Path, config: str, folder: str
) -> None:
    (tmp_path / folder).mkdir()
    source = write(tmp_path / folder / "server_secret", SECRET)
    text = "zego: {apps: [{app_id: 1, server_secret_file: '${CREDENTIALS_DIRECTORY}/zego_server_secret'}]}"
    (app,) = load(write(tmp_path / config, text), {}).zego.apps
    assert app.server_secret_file is not None
    assert app.server_secret_file.path == source
    with pytest.raises(ConfigError, match="LoadCredential"):
        load(write(tmp_path / "another.yaml", text), {})


@pytest.mark.parametrize(
    ("content", "kept"),
    [("a secret", "a secret"), ("a secret\n", "a secret"), ("a\r\n", "a")],
)
def test_one_newline_is_stripped_from_a_secret(tmp_path: Path, content: str, kept: str) -> None:
    (tmp_path / "secret").write_bytes(content.encode())
    (tmp_path / "secret").chmod(0o400)
    loaded = load(write(tmp_path / "config.yaml", APP), {})
    assert loaded.zego.apps[0].secret.get_secret_value() == kept


@pytest.mark.usefixtures("here")
def test_unusable_secret_files_are_named_and_their_content_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path("secret")
    assert problems(APP) == [
        (
            "config.yaml: zego.apps[0].server_secret_file: secret cannot be read: No such file or directory; "
            "create it with mode 600, or correct the path"
        ),
    ]
    for mode in (0o604, 0o602, 0o644):
        write(file, SECRET, mode)
        assert problems(APP) == [
            (
                f"config.yaml: zego.apps[0].server_secret_file: secret has mode {mode:o}, "
                "open to all users of this machine; run: chmod 600 secret"
            ),
        ]
    flags = type("Flags", (), {"f_flag": os.ST_RDONLY})
    with monkeypatch.context() as patch:
        # What Kubernetes and Docker mount cannot be changed from inside.
        patch.setattr(os, "fstatvfs", lambda _: flags)
        (line,) = problems(APP)
    assert (
        "has mode 644, open to all users of this machine; it is on a read-only mount: mount it with mode 0440" in line
    )
    write(file, SECRET, 0o440)
    assert observed(APP).zego.apps[0].secret.get_secret_value() == SECRET
    write(file, "\n", 0o600)
    assert problems(APP) == ["config.yaml: zego.apps[0].server_secret_file: secret is empty; write the secret into it"]
    write(file, "\ufeff" + SECRET)
    (line,) = problems(APP)
    assert line.endswith("secret begins with a byte order mark; save it as UTF-8 without one")
    for content in (f"{SECRET} \n", f"\t{SECRET}", f"{SECRET}\n\n"):
        write(file, content)
        (line,) = problems(APP)
        assert line.endswith("secret begins or ends with a blank or an empty line; it must contain only the secret")
        assert SECRET not in line
    file.write_bytes(SECRET.encode() + b"\xff")
    assert "is not UTF-8 text" in problems(APP)[0]
    write(file, SECRET * 200)
    assert "is larger than 4096 bytes" in problems(APP)[0]
    file.unlink()
    file.mkdir(mode=0o700)
    assert "secret cannot be read: Is a directory" in problems(APP)[0]
    file.rmdir()
    os.mkfifo(file, 0o600)
    assert "secret is not a regular file" in problems(APP)[0]


@pytest.mark.usefixtures("here")
def test_a_secret_in_the_file_itself_is_refused_and_not_repeated() -> None:
    lines = problems(f"zego: {{apps: [{{app_id: 1, server_secret: {SECRET}}}]}}")
    assert lines == [
        (
            "config.yaml: zego.apps[0].server_secret: a secret does not belong in this file; "
            "put it into a file of its own with mode 600 and set server_secret_file to its path"
        ),
    ]


@pytest.mark.usefixtures("here")
def test_an_app_has_exactly_one_secret_and_one_entry() -> None:
    write(Path("secret"), SECRET)
    assert problems("zego: {apps: [{app_id: 7}]}") == [
        "config.yaml: zego.apps[0]: app 7 needs exactly one secret; set server_secret_file to its path"
    ]
    one = "{app_id: 7, server_secret_file: secret}"
    assert problems(f"zego: {{apps: [{one}, {one}]}}") == [
        "config.yaml: zego.apps: app_id 7 is given twice; keep one of the two"
    ]
    for app_id in ("0", "-1", "4294967296", "x"):
        (line,) = problems(f"zego: {{apps: [{{app_id: {app_id}, server_secret_file: secret}}]}}")
        assert line.startswith(f"config.yaml: zego.apps[0].app_id: '{app_id}' is refused; write ")


def test_secrets_appear_nowhere(tmp_path: Path) -> None:
    write(tmp_path / "secret", SECRET)
    write(tmp_path / "password", "correct horse/battery")
    text = f"database: {{url: postgresql://watch@db/zego, password_file: password}}\n{APP}"
    loaded = load(write(tmp_path / "config.yaml", text), {})
    shown = f"{loaded!r} {loaded} {loaded.model_dump()} {loaded.model_dump_json()} {to_jsonable_python(loaded)}"
    shown += f" {loaded.database.safe_url} {loaded.database.sqlalchemy_url!r} {loaded.zego.apps[0].secret}"
    assert SECRET not in shown
    assert "correct horse" not in shown
    assert "correct%20horse" not in shown
    # From here on no text that is scrubbed holds them either.
    assert scrub(f"{SECRET} correct horse/battery correct%20horse%2Fbattery") == "*** *** ***"


# The database


@pytest.mark.parametrize(
    ("url", "result"),
    [
        ("sqlite:///zego-watchdog.db", "sqlite:///zego-watchdog.db"),
        ("sqlite:////var/lib/w.db", "sqlite:////var/lib/w.db"),
        ("sqlite:////var/lib/h#sh.db", "sqlite:////var/lib/h#sh.db"),
        (
            "postgresql://me@h1:5432,h2:5433/db?sslmode=require",
            "postgresql+psycopg://me@/db?host=h1,h2&port=5432,5433&sslmode=require&target_session_attrs=read-write",
        ),
        (
            "postgresql://me@h1,h2/db?target_session_attrs=any",
            "postgresql+psycopg://me@/db?host=h1,h2&target_session_attrs=any",
        ),
        (
            "postgresql://me@h1:5432,[::1]:5433/db",
            "postgresql+psycopg://me@/db?host=h1,::1&port=5432,5433&target_session_attrs=read-write",
        ),
        (
            "postgresql://h1,h2/db",
            "postgresql+psycopg://@/db?host=h1,h2&target_session_attrs=read-write",
        ),
        ("postgresql://watch@db/zego", "postgresql+psycopg://watch@db/zego"),
        ("postgres://watch@db:5433/zego?sslmode=require", "postgresql+psycopg://watch@db:5433/zego?sslmode=require"),
        ("postgresql+psycopg://watch@db/zego", "postgresql+psycopg://watch@db/zego"),
        ("postgresql://watch@/zego?host=/run/postgresql", "postgresql+psycopg://watch@/zego?host=/run/postgresql"),
    ],
)
def test_database_urls_get_their_driver(url: str, result: str) -> None:
    database = DatabaseConfig(url=SecretStr(url))
    assert database.sqlalchemy_url.get_secret_value() == result
    assert database.is_sqlite == url.startswith("sqlite")
    assert unquote(sa.make_url(result).render_as_string()) == result
    assert database.safe_url == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite://watch.db", "three slashes"),
        ("sqlite://", "three slashes"),
        ("sqlite:///dir/q?mark.db", "may not contain"),
        ("sqlite:///per%cent.db", "may not contain"),
        ("sqlite:///", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("watch.db", "is no address of SQLite or PostgreSQL; write"),
        ("", "is no address of SQLite or PostgreSQL; write"),
        ("mysql://u:hunter22@h/d", "is no address of SQLite or PostgreSQL; write"),
        ("postgresql+asyncpg://u:hunter22@h/d", "is no address of SQLite or PostgreSQL; write"),
        ("postgresql://u:hunter22/x@h/d", "percent-encode"),
        ("postgresql://u:hunter22@[h/d", "percent-encode"),
        ("postgresql://u:hunter22@h,h:five/d", "percent-encode"),
        ("postgresql://u:hunter22@h,[::1/d", "percent-encode"),
    ],
)
@pytest.mark.usefixtures("here")
def test_other_databases_are_refused_without_showing_a_password(url: str, reason: str) -> None:
    (line,) = problems(f"policy: {{mode: observe}}\ndatabase: {{url: '{url}'}}")
    assert line.startswith("config.yaml: database.url: ")
    assert reason in line
    assert "hunter22" not in line


@pytest.mark.parametrize(
    "url", ["postgresql://watch@db/zego", "postgresql://watch:@db/zego", "postgresql://watch@/zego?host=/run/pg"]
)
def test_the_password_file_goes_into_the_url(tmp_path: Path, url: str) -> None:
    password = "p@ss:w/ör?d %"
    write(tmp_path / "password", password + "\n")
    text = f"policy: {{mode: observe}}\ndatabase: {{url: '{url}', password_file: password}}"
    loaded = load(write(tmp_path / "config.yaml", text), {})
    parsed = sa.make_url(loaded.database.sqlalchemy_url.get_secret_value())
    assert (parsed.password, parsed.username, parsed.database) == (password, "watch", "zego")
    assert parsed.host == "db" or parsed.query == {"host": "/run/pg"}


@pytest.mark.parametrize("url", ["sqlite:///w.db", "postgresql://db/zego", "postgresql://watch:hunter22@db/zego"])
@pytest.mark.usefixtures("here")
def test_a_password_file_needs_a_user_and_no_other_password(url: str) -> None:
    write(Path("password"), "correct horse")
    (line,) = problems(f"policy: {{mode: observe}}\ndatabase: {{url: '{url}', password_file: password}}")
    assert line.startswith("config.yaml: database: password_file needs a url with a user and without a password")


@pytest.mark.parametrize("url", ["postgresql://u:hunter22@h/d", "postgresql://u@h/d?password=hunter22"])
@pytest.mark.usefixtures("here")
def test_a_file_with_a_password_in_it_is_a_secret_file(url: str) -> None:
    text = f"policy: {{mode: observe}}\ndatabase: {{url: '{url}'}}"
    path = write(Path("config.yaml"), text, mode=0o600)
    assert load(None, {}).database.safe_url == url.replace("hunter22", "***")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=r"database\.url: contains a password, and the file has mode 644.*chmod 600"):
        load(None, {})
    # Other users cannot read the environment.
    assert load(None, {"ZEGO_WATCHDOG_DATABASE__URL": url}).database.safe_url


def test_the_test_databases_are_reachable_through_the_configuration(database_url: str) -> None:
    url = DatabaseConfig(url=SecretStr(database_url)).sqlalchemy_url.get_secret_value()
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1 + 1")) == 2
        assert not sa.inspect(connection).get_table_names()
    engine.dispose()


# The vendor


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:1", "[::1]:9", "127.3.4.5"])
def test_plain_http_is_for_this_machine(host: str) -> None:
    assert ZegoConfig(asr_url=f"http://{host}").asr_url == f"http://{host}/"


@pytest.mark.parametrize(
    "url",
    [
        "http://rtc-api.zego.im/",
        "http://127.0.0.1.example.com/",
        "ftp://127.0.0.1/",
        "https://user:hunter22@h/",
        "https://h/?a=b",
        "rtc-api.zego.im",
        "https://",
        "https://[h",
    ],
)
@pytest.mark.usefixtures("here")
def test_other_addresses_are_refused(url: str) -> None:
    (line,) = problems(f"policy: {{mode: observe}}\nzego: {{rtc_url: '{url}'}}")
    assert line.startswith("config.yaml: zego.rtc_url: ")
    assert "hunter22" not in line


@pytest.mark.usefixtures("here")
def test_the_stop_api_cannot_be_left_out() -> None:
    (line,) = problems("policy: {mode: observe}\nzego: {asr_url: ''}")
    assert line.startswith("config.yaml: zego.asr_url: '' is refused")


# Rules between keys


@pytest.mark.usefixtures("here")
def test_enforce_needs_an_app_and_the_error_names_both_solutions() -> None:
    (line,) = problems("")
    assert line == (
        "config.yaml: policy.mode is enforce, but zego.apps is empty, so stop requests cannot be signed; "
        "add an app with its server_secret_file to zego.apps, or set policy.mode to observe"
    )


@pytest.mark.parametrize("verify", ["required", "when_possible"])
@pytest.mark.usefixtures("here")
def test_verification_needs_an_occupancy_api(verify: str) -> None:
    (line,) = problems(f"policy: {{mode: observe, verify: {verify}}}\nzego: {{rtc_url: ''}}")
    assert line.startswith(f"config.yaml: policy.verify is {verify}, but zego.rtc_url is empty")
    assert "set zego.rtc_url, or set policy.verify to off" in line


@pytest.mark.usefixtures("here")
def test_a_policy_that_is_always_too_late_is_refused() -> None:
    (line,) = problems("policy: {mode: observe, grace_seconds: 45, safety_margin_seconds: 20, max_idle_seconds: 60}")
    assert line == (
        "config.yaml: policy: grace_seconds 45 + safety_margin_seconds 20 = 65 is more than max_idle_seconds 60: "
        "ZEGO would always be first; lower grace_seconds to 40 or less"
    )
    assert (
        observed("policy: {grace_seconds: 40, safety_margin_seconds: 20, max_idle_seconds: 60}").policy.grace_seconds
        == 40
    )
    (line,) = problems("policy: {mode: observe, grace_seconds: 5, max_idle_seconds: 30}\nschedule: {poll_seconds: 6}")
    assert "schedule.poll_seconds 6 + policy.confirm_seconds 5 + policy.safety_margin_seconds 20 = 31" in line


@pytest.mark.usefixtures("here")
def test_sweeps_must_come_more_often_than_gaps_begin() -> None:
    (line,) = problems("policy: {mode: observe, gap_seconds: 19}\nschedule: {poll_seconds: 10}")
    assert line.endswith("raise policy.gap_seconds to 20 or more")


@pytest.mark.usefixtures("here")
def test_all_lists_are_not_read_every_second() -> None:
    (line,) = problems("policy: {mode: observe}\nschedule: {adopt_seconds: 59}")
    assert line.endswith(
        "schedule.adopt_seconds 59 is too often, because ZEGO is asked for all running tasks each time; "
        "write 60 or more, or 0 to switch it off"
    )
    for seconds in (0, 60):
        assert observed(f"schedule: {{adopt_seconds: {seconds}}}").schedule.adopt_seconds == seconds


@pytest.mark.usefixtures("here")
def test_keys_of_a_kind_in_the_file_and_in_the_environment() -> None:
    text = "policy: {mode: observe, kinds: {agent: {grace_seconds: 30}}}\nzego: {urls: {agent: 'https://one/'}}"
    variables = {
        "ZEGO_WATCHDOG_ZEGO__URLS__PLAYER": "https://two",
        "ZEGO_WATCHDOG_POLICY__KINDS__AGENT__GRACE_SECONDS": "20",
    }
    config = load(write(Path("config.yaml"), text), variables)
    assert (config.zego.urls.agent, config.zego.urls.player) == ("https://one/", "https://two/")
    assert config.policy.rules.kinds == {"agent": {"grace_seconds": 20}}
    with pytest.raises(ConfigError) as raised:
        load(Path("config.yaml"), {"ZEGO_WATCHDOG_POLICY__KINDS__AGENT__GRACE_SECONDS": "long"})
    assert str(raised.value) == ("ZEGO_WATCHDOG_POLICY__KINDS__AGENT__GRACE_SECONDS: 'long' is refused; write a number")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("zego: {urls: {agnet: 'https://one/'}}", "zego.urls.agnet: unknown key; did you mean agent?"),
        ("zego: {urls: {agent: one}}", "zego.urls.agent: 'one'"),
        ("policy: {kinds: {player: {max_idle_seconds: 60}}}", "policy.kinds.player.max_idle_seconds: unknown key"),
        ("policy: {kinds: {asr: {grace_seconds: 60}}}", "policy.kinds.asr: unknown key; the keys here are: agent"),
        (
            "policy: {kinds: {agent: {grace_seconds: 110}}}",
            "policy.kinds.agent: grace_seconds 110 + safety_margin_seconds 20 = 130 is more than max_idle_seconds 120",
        ),
    ],
)
def test_mistakes_in_the_keys_of_a_kind(text: str, says: str) -> None:
    lines = problems(text if "policy" in text else text + "\npolicy: {mode: observe}")
    assert any(says in line for line in lines), lines


@pytest.mark.usefixtures("here")
def test_an_age_limit_that_does_nothing_or_stops_people_is_warned_of() -> None:
    for quiet in ("{max_age_seconds: 3600}", "{max_age_seconds: 3600, on_max_age: stop}"):
        assert observed(f"policy: {quiet}").warnings == ()
    (warning,) = observed("policy: {on_max_age: stop}").warnings
    assert "policy.max_age_seconds is 0" in warning
    (warning,) = observed("policy: {max_age_seconds: 3600, on_max_age: stop_with_people_inside}").warnings
    assert "older than 3600 s is stopped while people are in its room" in warning


@pytest.mark.usefixtures("here")
def test_a_policy_too_slow_for_the_newer_window_is_warned_of() -> None:
    assert observed("policy: {grace_seconds: 100}").warnings == ()
    (warning,) = observed("policy: {grace_seconds: 101}").warnings
    assert "policy.grace_seconds 101 + policy.safety_margin_seconds 20 = 121 is more than 120" in warning


@pytest.mark.usefixtures("here")
def test_a_pace_of_stops_that_cannot_be_verified_is_warned_of() -> None:
    stop = "stop: {requests_per_second: 500, occupancy_requests_per_second: 10, lease_seconds: 60}"
    (warning,) = observed(stop).warnings
    assert "stop.requests_per_second 500" in warning
    assert "100 rooms a second" in warning
    assert warning.endswith("raise stop.occupancy_requests_per_second to 50")
    assert observed(stop + "\npolicy: {verify: off}").warnings == ()
    assert observed("stop: {requests_per_second: 100, occupancy_requests_per_second: 10}").warnings == ()


@pytest.mark.usefixtures("here")
def test_a_lease_without_time_to_wait_is_warned_of() -> None:
    (warning,) = observed("stop: {lease_seconds: 11}").warnings
    assert "leaves -5 s" in warning
    assert "10 tasks at a time" in warning
    assert warning.endswith("raise stop.lease_seconds to 20 or lower stop.request_timeout_seconds")
    (warning,) = observed("stop: {requests_per_second: 90, lease_seconds: 5, request_timeout_seconds: 2}").warnings
    assert "leaves 1 s" in warning
    assert "50 tasks at a time" in warning
    assert observed("stop: {lease_seconds: 11}\npolicy: {verify: off}").warnings == ()


def test_it_is_frozen() -> None:
    section = PolicyConfig()
    with pytest.raises(ValueError, match="frozen"):
        setattr(section, "grace_seconds", 1)  # noqa: B010  # a plain assignment is refused before it runs


def test_an_app_may_be_built_directly() -> None:
    app = AppConfig(app_id=1, server_secret=SecretStr(SECRET))
    assert app.secret.get_secret_value() == SECRET


# The example


def uncommented(text: str) -> str:
    """Return the example with every default set: a line that begins with # and no space is one."""
    return re.sub(r"^(\s*)#(?=\w+:)", r"\1", text, flags=re.MULTILINE)


def keys(values: dict[str, Any]) -> set[tuple[str, str]]:
    return {(section, key) for section, inside in values.items() for key in inside}


def test_the_example_works_as_it_is(here: Path) -> None:
    write(here / "config.yaml", EXAMPLE.read_text(encoding="utf-8"), stat.S_IMODE(EXAMPLE.stat().st_mode))
    loaded = load(None, {})
    assert loaded.policy.mode is Mode.OBSERVE
    assert loaded.warnings == ()
    assert loaded == Config(policy=PolicyConfig(mode=Mode.OBSERVE))


def test_the_example_shows_every_key_with_its_default(tmp_path: Path) -> None:
    text = uncommented(EXAMPLE.read_text(encoding="utf-8"))
    path = write(tmp_path / "config.yaml", text)
    assert load(path, {}) == load(EXAMPLE, {})
    shown = keys(yaml.load(text, yaml.BaseLoader))  # noqa: S506  # text only
    assert shown == {
        (section, key) for section, field in Config.model_fields.items() for key in type(field.default).model_fields
    } - {("http", "token"), ("notify", "secret")}, "a secret is for the environment alone"


WEBHOOK_SECRETS = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + "QUJD" * 8]


def test_a_webhook(here: Path) -> None:
    write(here / "hook", "\n".join(WEBHOOK_SECRETS) + "\n")
    loaded = observed(
        "notify: {url: 'https://hooks.test:8443/in?token=t', secret_file: hook, "
        "events: [room.rejoined, task.stopped, room.rejoined], allowed_networks: [10.0.0.0/8, '::1']}"
    ).notify
    assert loaded.types == (EventType.ROOM_REJOINED, EventType.TASK_STOPPED)
    assert (loaded.host, len(loaded.signing_keys)) == ("hooks.test", 2)
    assert [str(network) for network in loaded.allowed_networks] == ["10.0.0.0/8", "::1/128"]
    assert "token" not in str(loaded)
    for secret in WEBHOOK_SECRETS:
        assert scrub(f"so {secret} it is") == scrub("so x it is").replace("x", "***")


@pytest.mark.usefixtures("here")
def test_events_without_a_webhook_are_for_sql() -> None:
    loaded = observed("notify: {events: [all]}")
    assert loaded.notify.types == tuple(EventType)
    assert loaded.notify.signing_keys == ()
    assert loaded.warnings == ()
    assert observed("notify:\n  events:\n").notify.types == ()


@pytest.mark.usefixtures("here")
def test_a_webhook_from_the_environment() -> None:
    environ = {
        "ZEGO_WATCHDOG_NOTIFY__URL": "https://hooks.test/",
        "ZEGO_WATCHDOG_NOTIFY__SECRET": "\n".join(WEBHOOK_SECRETS),
        "ZEGO_WATCHDOG_NOTIFY__EVENTS": '["task.gone"]',
        "ZEGO_WATCHDOG_NOTIFY__ALLOWED_NETWORKS": "[10.0.0.0/8]",
    }
    loaded = observed("", environ).notify
    assert (loaded.types, len(loaded.signing_keys)) == ((EventType.TASK_GONE,), 2)


@pytest.mark.parametrize(
    ("keys_given", "problem"),
    [
        ("url: 'https://h.test/'", "notify: url is set, but events is empty, so nothing would be sent"),
        (
            "url: 'https://h.test/', events: [all]",
            "notify: url is set, but secret_file is not, so the receiver could not tell our requests from others",
        ),
        ("events: [task.stoped]", "notify.events: 'task.stoped' is no event; did you mean task.stopped?"),
        ("events: [x]", "notify.events: 'x' is no event; write all, task.stopped, task.auto_stopped, "),
        ("events: all", "notify.events: 'all' is refused; write a list (default: ())"),
        ("url: ftp://h.test/", "notify.url: is not an address of http or https; write for example https://"),
        ("url: 'https://h.test:hunter22/'", "notify.url: its host and port cannot be read; write for example https://"),
        ("url: 'https://u:hunter22@h.test/'", "notify.url: may have no user, password or fragment; the receiver"),
        ("url: 'https://h.test/hunter 22'", "notify.url: is not an address of http or https; "),
        (
            "secret_file: bad",
            "notify: secret_file bad: what follows whsec_ is not base64; make one with: echo whsec_",
        ),
        ("secret: hunter22", "notify.secret: a secret does not belong in this file; put it into a file of its own"),
        (
            "allowed_networks: [10.0.0.1/8]",
            "notify.allowed_networks[0]: '10.0.0.1/8' is not a network; did you mean",
        ),
        (
            "allowed_networks: [here]",
            "notify.allowed_networks[0]: 'here' is not a network; write for example 10",
        ),
        (
            "request_timeout_seconds: 0",
            "notify.request_timeout_seconds: '0' is refused; write more than 0",
        ),
        ("urls: x", "notify.urls: unknown key; did you mean url?"),
    ],
)
def test_a_webhook_that_cannot_be_used(here: Path, keys_given: str, problem: str) -> None:
    write(here / "bad", "whsec_hunter22 is not base64")
    (line,) = problems(f"policy: {{mode: observe}}\nnotify: {{{keys_given}}}")
    assert line.startswith(f"config.yaml: {problem}")
    assert "hunter22" not in line


def test_a_command_of_the_database_does_not_read_the_webhooks_secret(here: Path) -> None:
    path = write(
        here / "config.yaml",
        "policy: {mode: observe}\nnotify: {url: 'https://h.test/', secret_file: nowhere, events: [all]}",
    )
    assert load(path, {}, database_only=True).notify.host == "h.test"


@pytest.mark.parametrize(
    ("url", "is_in_clear"), [("http://h.test/", True), ("http://127.0.0.1:9/", False), ("https://h.test/", False)]
)
def test_events_that_others_can_read_are_a_warning(here: Path, url: str, *, is_in_clear: bool) -> None:
    write(here / "hook", WEBHOOK_SECRETS[0])
    warnings = observed(f"notify: {{url: '{url}', secret_file: hook, events: [all]}}").warnings
    assert ["notify.url leads to h.test without encryption" in line for line in warnings] == [True] * is_in_clear


def test_a_webhooks_secret_without_an_address_is_a_warning(here: Path) -> None:
    write(here / "hook", WEBHOOK_SECRETS[0])
    (line,) = observed("notify: {secret_file: hook, events: [all]}").warnings
    assert line.startswith("notify has a secret, and notify.url is empty")


def test_the_example_of_an_app_works(tmp_path: Path) -> None:
    write(tmp_path / "server_secret", SECRET)
    text = EXAMPLE.read_text(encoding="utf-8")
    text = re.sub(r"^  apps: \[\]$", "  apps:", text, flags=re.MULTILINE)
    text = re.sub(r"^  #(?= +(- app_id|server_secret_file):)", "  ", text, flags=re.MULTILINE)
    text = text.replace("/etc/zego-watchdog/server_secret", "server_secret").replace("mode: observe", "mode: enforce")
    loaded = load(write(tmp_path / "config.yaml", text), {})
    assert [app.app_id for app in loaded.zego.apps] == [1234567890]


def test_the_policys_defaults_are_the_cores() -> None:
    assert PolicyConfig().rules == Policy()


@pytest.mark.parametrize(
    ("named", "state", "url", "folder"),
    [
        ("/srv/journal", "/var/lib/one", "sqlite:////data/watchdog.db", "/srv/journal"),
        ("", "/var/lib/one:/var/lib/two", "sqlite:////data/watchdog.db", "/var/lib/one"),
        ("", "", "sqlite:////data/watchdog.db", "/data"),
        ("", "", "postgresql://me@host/db", None),
        ("", "/var/lib/one", "postgresql://me@host/db", "/var/lib/one"),
    ],
)
def test_where_answers_wait_for_the_database(named: str, state: str, url: str, folder: str | None) -> None:
    config = Config.model_validate(
        {"database": {"url": url}, "policy": {"mode": "observe"}, "stop": {"journal_directory": named}}
    )
    found = config.journal({"STATE_DIRECTORY": state} if state else {})
    assert found == (None if folder is None else Path(folder))


def test_the_journal_directory_must_be_absolute() -> None:
    with pytest.raises(ValueError, match="not an absolute path"):
        Config.model_validate({"policy": {"mode": "observe"}, "stop": {"journal_directory": "journal"}})


def test_a_page_that_others_can_reach_needs_a_token(here: Path) -> None:
    text = "policy: {mode: observe}\nhttp: {listen: '0.0.0.0:8765', page: true}"
    (problem,) = problems(text)
    assert "http.page is true" in problem
    assert "set http.token_file, or listen on 127.0.0.1" in problem
    write(here / "token", "t")
    assert observed(f"{text[:-1]}, token_file: token}}").http.page
    assert observed("http: {listen: '127.0.0.1:8765', page: true}").warnings == ()
    (warning,) = observed("http: {page: true}").warnings
    assert warning.startswith("http.page is true, and http.listen is empty")


@pytest.mark.usefixtures("here")
def test_names_of_the_page() -> None:
    config = observed("http: {page_hosts: [Watchdog.Example.com., wd]}")
    assert config.http.page_hosts == ("watchdog.example.com", "wd")
    assert observed("http:\n  page_hosts:").http.page_hosts == ()
    variable = {"ZEGO_WATCHDOG_HTTP__PAGE_HOSTS": '["a.example"]', "ZEGO_WATCHDOG_HTTP__PAGE": "true"}
    assert observed("", variable).http.page_hosts == ("a.example",)
    for name in ("https://watchdog.example.com", "watchdog.example.com:443", "'*'", "''"):
        (problem,) = problems(f"policy: {{mode: observe}}\nhttp: {{page_hosts: [{name}]}}")
        assert "is no host name; write for example watchdog.example.com" in problem
