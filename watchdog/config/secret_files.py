"""Secrets in files of their own: a key ``…_file`` has the path, and the file is read with the configuration."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationInfo

from watchdog.logs.redaction import redact

_SECRET_FILE_LIMIT: Final = 4096
OTHERS: Final = 0o007
"""The permission bits of users that are neither the owner nor in the group."""


@dataclass(frozen=True, slots=True)
class SecretFile:
    path: Path
    content: SecretStr


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the values come from; the context of the validation.

    ``variables`` maps the path of each key that did not come from ``file`` to its environment variable. With
    ``database_only`` no secret file is read but the database's.
    """

    file: Path
    environ: Mapping[str, str]
    variables: Mapping[tuple[str, ...], str]
    database_only: bool = False


def _read_secret(value: object, info: ValidationInfo) -> SecretFile | None:
    """Read the file whose path a ``…_file`` key has; errors name the file and never show its content."""
    if isinstance(value, SecretFile):
        return value
    if not value:
        return None
    origin = info.context
    environ = origin.environ if isinstance(origin, Origin) else os.environ
    config = origin.file if isinstance(origin, Origin) else Path("config.yaml")
    if isinstance(origin, Origin) and origin.database_only and info.field_name != "password_file":
        return SecretFile(config.parent / str(value), SecretStr(""))
    path = _secret_path(str(value), config, environ)
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{path} is not a regular file; put the secret into one")
            if status.st_mode & OTHERS:
                mode = stat.S_IMODE(status.st_mode)
                todo = _closing(path, file.fileno())
                raise ValueError(f"{path} has mode {mode:o}, open to all users of this machine; {todo}")
            raw = file.read(_SECRET_FILE_LIMIT + 1)
    except OSError as error:
        todo = (
            "run this as root or as the daemon's user, or let this user read it"
            if isinstance(error, PermissionError)
            else "create it with mode 600, or correct the path"
        )
        raise ValueError(f"{path} cannot be read: {error.strerror}; {todo}") from error
    return SecretFile(path, SecretStr(_decode_secret(raw, path)))


def _open_without_waiting(path: str, flags: int) -> int:
    """Open without blocking on a pipe that has no writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _closing(path: Path, descriptor: int) -> str:
    """How to close a file to other users. Nobody can on a read-only mount: its mode is set where it is mounted."""
    if os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
        return (
            "it is on a read-only mount: mount it with mode 0440 (Kubernetes: defaultMode: 0440, Compose: mode: 0440)"
        )
    return f"run: chmod 600 {path}"


def _secret_path(value: str, config: Path, environ: Mapping[str, str]) -> Path:
    credentials = "${CREDENTIALS_DIRECTORY}"
    if value.startswith(credentials):
        directory = environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            # A command has no credentials, but its user may be allowed to read the files that the unit loads them from.
            folder = config.parent / "secrets" if config.name == "config.yaml" else config.with_suffix(".secrets")
            source = folder / value.removeprefix(credentials).removeprefix("/").removeprefix("zego_")
            if os.access(source, os.R_OK):
                return source
            raise ValueError(_no_credential(value, source))
        return Path(directory + value.removeprefix(credentials))
    return config.parent / value


def _no_credential(value: str, source: Path) -> str:
    """Say why a command cannot read what the service gets as a credential."""
    try:
        is_missing = not source.exists()
    except PermissionError:
        is_missing = False
    if is_missing:
        return (
            f"{value}: there is no file {source}, from which systemd would take it (LoadCredential=); create it with "
            "mode 600, or correct the name"
        )
    return f"{value}: this user may not read {source}, from which systemd takes it; run the command as root"


def _decode_secret(raw: bytes, path: Path) -> str:
    if len(raw) > _SECRET_FILE_LIMIT:
        raise ValueError(f"{path} is larger than {_SECRET_FILE_LIMIT} bytes; it must contain only the secret")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        # Not chained: the exception carries the bytes.
        raise ValueError(f"{path} is not UTF-8 text; it must contain only the secret") from None
    secret = text.removesuffix("\n").removesuffix("\r")
    if secret.startswith("\ufeff"):
        raise ValueError(f"{path} begins with a byte order mark; save it as UTF-8 without one")
    if not secret:
        raise ValueError(f"{path} is empty; write the secret into it")
    if secret != secret.strip():
        raise ValueError(f"{path} begins or ends with a blank or an empty line; it must contain only the secret")
    redact(secret)
    return secret


def from_environment_only(section: str, key: str) -> AfterValidator:
    """Refuse a secret written into the configuration file itself; (``section``, ``key``) is where it stands."""

    def check(value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if isinstance(info.context, Origin) and (section, key) not in info.context.variables:
            raise ValueError(
                "a secret does not belong in this file; put it into a file of its own with mode 600 "
                f"and set {info.field_name}_file to its path"
            )
        if value is not None:
            redact(value.get_secret_value())
        return value

    return AfterValidator(check)


def given(value: SecretStr | None, file: SecretFile | None) -> SecretStr | None:
    """The secret, from the environment or its file; None if there is neither."""
    return value if file is None else file.content


SecretFromFile = Annotated[SecretFile | None, BeforeValidator(_read_secret)]
