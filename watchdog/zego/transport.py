"""Carries the requests to one ZEGO host: httpx2's own transport, through a proxy where the environment names one."""

import socket
import ssl
import struct
import urllib.request
from typing import Final
from urllib.parse import urlsplit

import httpx2 as httpx

from watchdog.errors import ConfigError
from watchdog.network.connections import KEEPALIVE_SECONDS, Connections
from watchdog.network.streams import GuardedBackend
from watchdog.zego.replies import BODY_LIMIT_BYTES

# Closing a connection also drops what has not been delivered. Otherwise the kernel goes on delivering a request that
# was given up, for minutes: when the network is back, ZEGO would carry out a stop that was decided long ago.
_RESET_ON_CLOSE: Final = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

WIRE_LIMIT_BYTES: Final = 2 * BODY_LIMIT_BYTES
"""How long a reply may be, with head and framing. A plain body that is too long is cut before."""

_PARTS_LIMIT: Final = 128
"""How many chunks a body may come in. Each costs the event loop as much as a kilobyte; ZEGO's bodies have one."""


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
        transport._pool._network_backend = GuardedBackend(WIRE_LIMIT_BYTES)  # noqa: SLF001  # httpx2 has no parameter for it
        return transport

    try:
        return Connections(connection, max_connections)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise _unusable_proxy(url.host) from error


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


async def read_body(response: httpx.Response) -> bytes:
    """Return the body; of an oversized one just enough to show that it is. Raises for one in crumbs."""
    # Raw: identity was asked for, and unpacking anything else would break the limit.
    assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - an asynchronous transport's are
    body, parts = b"", 0
    async for chunk in response.stream:
        body, parts = body + chunk, parts + 1
        if len(body) > BODY_LIMIT_BYTES:
            break
        if parts > _PARTS_LIMIT:
            raise httpx.RemoteProtocolError(f"a reply in more than {_PARTS_LIMIT} parts")
    return body
