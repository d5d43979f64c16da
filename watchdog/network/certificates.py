"""What verifies the certificate of the other side."""

import os
import ssl
from pathlib import Path

import httpx2 as httpx

from watchdog.errors import ConfigError


def tls_context(whose: str) -> ssl.SSLContext:
    """Return what verifies ``whose`` certificate: the system's certificates, or those that the environment names.

    Raises ConfigError if they cannot be loaded.
    """
    named = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), None)
    where = f"what {named} names" if named else "this system's certificates"
    reason, cause = "there are none", None
    try:
        context = httpx.create_ssl_context()
        folder = os.environ.get("SSL_CERT_DIR") if named else ssl.get_default_verify_paths().openssl_capath
        if context.cert_store_stats()["x509"] or (named != "SSL_CERT_FILE" and _holds_certificates(folder)):
            return context
    except OSError as error:
        cause = error
        # An error of OpenSSL has no text for people.
        reason = "no certificate in it" if isinstance(error, ssl.SSLError) else os.strerror(error.errno or 0)
    raise ConfigError(
        f"{where} cannot be loaded, so {whose} certificate cannot be verified: {reason}; "
        f"{f'correct {named}, or ' if named else ''}install the package ca-certificates"
    ) from cause


def _holds_certificates(folder: str | None) -> bool:
    """Whether OpenSSL finds certificates there when it verifies: it looks for their hashes."""
    return folder is not None and any(Path(folder).glob("*[0-9a-f].[0-9]"))
