"""Carries the requests to one ZEGO host: httpx2's own transport, through a proxy where the environment names one."""

import os
import socket
import ssl
import struct
import urllib.request
from typing import Final

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
    """Return a transport to the host of ``url`` that opens at most ``max_connections``.

    Without ``reuse`` each request has a connection of its own. Honours HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.
    Raises ConfigError for a proxy that cannot be used.
    """
    limits = httpx.Limits(
        max_connections=1, max_keepalive_connections=1 if reuse else 0, keepalive_expiry=KEEPALIVE_SECONDS
    )
    proxy = proxy_to(url.scheme, url.host)
    verify = tls or tls_context()

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
        # The error may quote the proxy's URL, which may hold a password.
        raise ConfigError(
            f"the proxy that the environment names for {url.host} cannot be used ({type(error).__name__}): "
            "set an http:// or https:// proxy in HTTPS_PROXY or ALL_PROXY, or add the host to NO_PROXY"
        ) from error


def tls_context() -> ssl.SSLContext:
    """Return what verifies ZEGO's certificate: the system's certificates, or those that the environment names.

    Raises ConfigError if they cannot be loaded.
    """
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        named = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
        where = f"what {named[0]} names" if named else "this system's certificates"
        raise ConfigError(
            f"{where} cannot be loaded, so ZEGO's certificate cannot be verified: {error.strerror or error}; "
            "correct the variable, or install the package ca-certificates"
        ) from error


def proxy_to(scheme: str, host: str) -> str | None:
    """Return the URL of the proxy that the environment names for this host; None if it names none."""
    if urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"
