"""Which addresses a request may go to.

The DNS of a name is in other hands, and must not lead the daemon's requests into its own network. So a name leads to
public addresses, and to those in ``notify.allowed_networks``. The addresses that are checked are those that are
connected to: a second answer of the DNS is never asked for. An address that the operator wrote into the URL is meant.
"""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from watchdog.network.streams import Address, Resolve

Network = IPv4Network | IPv6Network

_LOOKUPS: Final = 2
"""Lookups at a time. They have threads of their own: a DNS that hangs must not delay the lookup of ZEGO's host."""

_IPV4_IN_IPV6: Final = IPv6Network("64:ff9b::/96")
"""The prefix of NAT64 (RFC 6052): the last four bytes are the address that is reached."""


class Destinations:
    """Finds the addresses of a host that a request may go to."""

    def __init__(self, allowed: Sequence[Network], resolve: Resolve | None = None) -> None:
        self._allowed = allowed
        self._resolve = resolve or _Lookups()

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        """Raise OSError if there is no address, or none that is allowed."""
        found = await self._resolve(host, port)
        reachable = [address for address in found if self._is_allowed(host, address[4][0])]
        if found and not reachable:
            raise OSError(
                f"{host} leads to {found[0][4][0]}, which is not public: if that is right, add its network to "
                "notify.allowed_networks"
            )
        return reachable

    def _is_allowed(self, host: str, text: str) -> bool:
        address = _reached(ip_address(text))
        if is_literal(host):
            return True
        if host == "localhost":
            return address.is_loopback
        if any(address in network for network in self._allowed):
            return True
        return address.is_global and not address.is_multicast


def is_literal(host: str) -> bool:
    """Whether a host is an address and not a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _reached(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address stands for; any other as it is."""
    if isinstance(address, IPv4Address):
        return address
    if address in _IPV4_IN_IPV6:
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or address


class _Lookups:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="webhook-dns")

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        return await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
