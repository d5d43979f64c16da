"""Carries the requests to one ZEGO host: httpx2's own transport, through a proxy where the environment names one."""

import os
import socket
import ssl
import struct
import urllib.request
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2 as httpx

from watchdog.errors import ConfigError
from watchdog.zego.connections import KEEPALIVE_SECONDS, Connections
from watchdog.zego.streams import GuardedBackend

# Closing a connection also drops what has not been delivered. Otherwise the kernel goes on delivering a request that
# was given up, for minutes: when the network is back, ZEGO would carry out a stop that was decided long ago.
_RESET_ON_CLOSE: Final = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def network_transport(
    url: httpx.URL, max_connections: int, tls: ssl.SSLContext | None, *, reuse: bool = True
) -> httpx.AsyncBaseTransport:
    """Return a transport to the host of ``url`` that opens at most ``max_connections``; ``tls`` is None for http.

    Without ``reuse`` each request has a connection of its own. Honours HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.
    Raises ConfigError for a proxy that cannot be used.
    """
    limits = httpx.Limits(
        max_connections=1, max_keepalive_connections=1 if reuse else 0, keepalive_expiry=KEEPALIVE_SECONDS
    )
    proxy = proxy_to(url.scheme, url.host)
    verify = tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def connection() -> httpx.AsyncHTTPTransport:
        transport = httpx.AsyncHTTPTransport(
            verify=verify, limits=limits, proxy=proxy, socket_options=[_RESET_ON_CLOSE]
        )
        # Without effect, test_reuse.py fails.
        transport._pool._network_backend = GuardedBackend()  # noqa: SLF001  # httpx2 has no parameter for it
        return transport

    try:
        return Connections(connection, max_connections)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise _unusable_proxy(url.host) from error


def tls_context() -> ssl.SSLContext:
    """Return what verifies ZEGO's certificate: the system's certificates, or those that the environment names.

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
        f"{where} cannot be loaded, so ZEGO's certificate cannot be verified: {reason}; "
        f"{f'correct {named}, or ' if named else ''}install the package ca-certificates"
    ) from cause


def _holds_certificates(folder: str | None) -> bool:
    """Whether OpenSSL finds certificates there when it verifies: it looks for their hashes."""
    return folder is not None and any(Path(folder).glob("*[0-9a-f].[0-9]"))


def proxy_to(scheme: str, host: str) -> str | None:
    """Return the URL of the proxy that the environment names for this host; None if it names none.

    Raises ConfigError for a URL that cannot be read.
    """
    if urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if proxy is None:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        _ = urlsplit(proxy).port
    except ValueError as error:
        raise _unusable_proxy(host) from error
    return proxy


def _unusable_proxy(host: str) -> ConfigError:
    """Without the proxy's URL, which may hold a password."""
    return ConfigError(
        f"the proxy that the environment names for {host} cannot be used; "
        "set an http:// or https:// proxy in HTTPS_PROXY or ALL_PROXY, or add the host to NO_PROXY"
    )
