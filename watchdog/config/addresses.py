"""Addresses in the configuration: each function returns the value as it is used, or raises ValueError."""

import ipaddress
import re
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr

from watchdog.logs.redaction import scrub

_SEVERAL_HOSTS: Final = re.compile(
    r"(?P<scheme>[\w+]+://)(?P<user>[^/?#]*@)?(?P<hosts>[^/?#@]*,[^/?#@]*)(?P<rest>.*)", re.DOTALL
)


def database_url(value: SecretStr) -> SecretStr:
    """Accept SQLite and PostgreSQL only."""
    url = value.get_secret_value()
    scheme, separator, rest = url.partition("://")
    match scheme if separator else "":
        case "sqlite":
            if not rest.startswith("/"):
                raise ValueError("a SQLite URL has three slashes before the path; write sqlite:///zego-watchdog.db")
            if rest.partition("?")[0] in {"/", "/:memory:"}:
                raise ValueError("a database in memory ends with its process; name a file: sqlite:///zego-watchdog.db")
            if not {"?", "%"}.isdisjoint(rest):
                raise ValueError("a SQLite path may not contain ? or %, which mean something else in a URL; rename it")
            return value
        case "postgresql" | "postgres" | "postgresql+psycopg":
            try:
                _ = urlsplit(_several_hosts(url)).port
            except ValueError:
                # Not chained: the exception carries a part of the URL.
                raise ValueError(
                    "its host and port cannot be read; write postgresql://user@host:5432/database, and "
                    "percent-encode special characters in a password, or use database.password_file"
                ) from None
            return value
        case _:
            raise ValueError(
                "is no address of SQLite or PostgreSQL; write sqlite:///FILE (three slashes, then a path) or "
                "postgresql://user@host/database"
            )


def with_driver(url: str) -> str:
    """Return an accepted address as SQLAlchemy takes it: the driver is named, several hosts are parameters."""
    if url.startswith("sqlite:"):
        return url
    return f"postgresql+psycopg://{_several_hosts(url).partition('://')[2]}"


def _several_hosts(url: str) -> str:
    """Turn libpq's ``user@host1:5432,host2:5432/db`` into parameters, which SQLAlchemy passes on to libpq.

    Unless the URL says otherwise, the one that can be written to is taken.
    """
    # Python 3.14 splits no URL in which a host in brackets is not the first.
    found = _SEVERAL_HOSTS.fullmatch(url)
    if found is None:
        return url
    parts = urlsplit(f"{found['scheme']}{found['user'] or '@'}{found['rest']}")
    hosts, ports = zip(*(_host_and_port(host) for host in found["hosts"].split(",")), strict=True)
    query = [("host", ",".join(hosts)), *([("port", ",".join(ports))] if any(ports) else []), *parse_qsl(parts.query)]
    if "target_session_attrs" not in dict(query):
        query.append(("target_session_attrs", "read-write"))
    return urlunsplit(parts._replace(query=urlencode(query, safe=":/,")))


def _host_and_port(text: str) -> tuple[str, str]:
    """Raises ValueError. An address of IPv6 is in brackets; without a port the second is empty."""
    found = re.fullmatch(r"(?:\[(?P<v6>[^]]+)\]|(?P<host>[^][:]*))(?::(?P<port>\d*))?", text)
    if found is None:
        raise ValueError(text)
    return unquote(found["v6"] or found["host"]), found["port"] or ""


def vendor_url(value: str) -> str:
    """Accept plain HTTP for this machine only; an empty value stays empty."""
    if not value:
        return value
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or "@" in value:
        raise ValueError(f"{scrub(value)!r} is not a plain address; write for example https://rtc-api.zego.im/")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError(f"{value!r} would send signatures unencrypted; write https:// (http is for 127.0.0.1 only)")
    return value if value.endswith("/") else value + "/"


def webhook_url(value: SecretStr) -> SecretStr:
    """Accept an address of http or https; an empty value stays empty. Errors show none of it: it may hold a token."""
    url = value.get_secret_value()
    if not url:
        return value
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # Not chained: the exception carries a part of the URL.
        raise ValueError("its host and port cannot be read; write for example https://example.com/hooks/zego") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not url.isprintable() or " " in url:
        raise ValueError("is not an address of http or https; write for example https://example.com/hooks/zego")
    if parts.fragment or "@" in parts.netloc:
        raise ValueError("may have no user, password or fragment; the receiver verifies the signature instead")
    return value


def network(value: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Accept a network such as 10.0.0.0/8, or one address."""
    text = str(value)
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = f"; did you mean {ipaddress.ip_network(text, strict=False)}?"
    except ValueError:
        meant = "; write for example 10.0.0.0/8"
    raise ValueError(f"{text!r} is not a network{meant}")


def listen_address(value: str) -> str:
    """Accept a host and a port; an empty value stays empty."""
    host, _, port = value.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    is_port = port.isascii() and port.isdecimal() and int(port[:6]) < 1 << 16
    if value and (not bare or not is_port or (":" in bare) != (host != bare) or not set("/@ []").isdisjoint(bare)):
        raise ValueError(f"{value!r} is not a host and a port; write 127.0.0.1:8765, or [::1]:8765")
    return value


def host_name(value: str) -> str:
    """Accept a name as a browser's address line has it, without a port; returns it in small letters."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", value):
        raise ValueError(f"{value!r} is no host name; write for example watchdog.example.com, without http:// and port")
    return value.lower().rstrip(".")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def absolute_path(value: str) -> str:
    """Refuse a relative path, which depends on the working directory; an empty value stays empty."""
    if value and not Path(value).is_absolute():
        raise ValueError(f"{value!r} is not an absolute path; write for example /var/lib/zego-watchdog")
    return value
