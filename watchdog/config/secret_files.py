"""Secrets that stand in files of their own: a key ``…_file`` names one, and it is read when the configuration is."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, SecretStr, ValidationInfo

from watchdog.logs.redaction import redact

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
    config = origin.file if isinstance(origin, Origin) else Path("config.yaml")
    path = _secret_path(str(value), config, environ)
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


def _secret_path(value: str, config: Path, environ: Mapping[str, str]) -> Path:
    credentials = "${CREDENTIALS_DIRECTORY}"
    if value.startswith(credentials):
        directory = environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            # Whoever types a command has no credentials, but may be allowed to read what the unit makes them of.
            folder = config.parent / "secrets" if config.name == "config.yaml" else config.with_suffix(".secrets")
            source = folder / value.removeprefix(credentials).removeprefix("/zego_")
            if os.access(source, os.R_OK):
                return source
            raise ValueError(f"{value} needs $CREDENTIALS_DIRECTORY, which systemd sets for units with LoadCredential=")
        return Path(directory + value.removeprefix(credentials))
    return config.parent / value


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
