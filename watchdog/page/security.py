"""Who may read the page, and what a browser may do with it."""

import base64
import binascii
import hashlib
import hmac
import ipaddress
from collections.abc import Collection, Mapping
from typing import Final

ASK: Final = {"WWW-Authenticate": 'Basic realm="zego-watchdog", charset="UTF-8"'}
"""Makes a browser ask for the password."""

_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Vary": "Accept-Language",
}
_NOTHING_ELSE: Final = "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


def headers(style: str) -> Mapping[str, str]:
    """Return the headers of a page whose only style element has the text ``style``: nothing else is loaded or run."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; {_NOTHING_ELSE}"
    return {**_ALWAYS, "Content-Security-Policy": policy}


def report_headers() -> Mapping[str, str]:
    """Return the headers of a report, whose drawings have styles of their own."""
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; {_NOTHING_ELSE}"
    return {**_ALWAYS, "Content-Security-Policy": policy}


def is_known_host(header: str | None, names: Collection[str]) -> bool:
    """Whether a Host header has one of ``names``, in small letters, or an address in digits.

    Otherwise a name that an attacker's DNS server moves to this machine would let the attacker's script read the page
    (DNS rebinding). Without a name there is nothing to move.
    """
    if header is None:
        return False
    host = header.strip().lower()
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0].rstrip(".")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host in names
    return True


def has_token(authorization: str, token: str) -> bool:
    """Whether an Authorization header has the token: as Bearer, or as the password of Basic with any user name."""
    scheme, _, given = authorization.partition(" ")
    # Starlette decodes headers as Latin-1: this restores the bytes.
    shown = given.strip().encode("latin-1")
    match scheme.lower():
        case "bearer":
            pass
        case "basic":
            try:
                shown = base64.b64decode(shown, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        case _:
            return False
    return hmac.compare_digest(shown, token.encode())
