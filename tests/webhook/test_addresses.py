"""Which addresses a name may lead to."""

from collections.abc import Sequence
from ipaddress import ip_network
from socket import AF_INET, AF_INET6, SOCK_STREAM

import pytest

from watchdog.network.streams import Address
from watchdog.webhook.addresses import Destinations


class Resolved:
    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        del host
        return [
            (AF_INET6 if ":" in address else AF_INET, SOCK_STREAM, 6, "", (address, port))
            for address in self._addresses
        ]


async def reached(host: str, *addresses: str, allowed: str | None = None) -> list[str]:
    networks = [] if allowed is None else [ip_network(allowed)]
    return [address[4][0] for address in await Destinations(networks, Resolved(addresses))(host, 443)]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        "0.0.0.0",  # noqa: S104 - not listened on
        *("100.64.0.1", "192.0.2.1", "224.0.0.1", "255.255.255.255", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1"),
    ],
)
async def test_a_name_leads_to_no_address_that_is_not_public(address: str) -> None:
    with pytest.raises(OSError, match=r"leads to .* which is not public: if that is right, add its network"):
        await reached("hooks.test", address)
    assert await reached(address, address) == [address], "the operator wrote it"


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
async def test_public_addresses(address: str) -> None:
    assert await reached("hooks.test", address) == [address]


async def test_of_several_addresses_those_that_are_allowed_are_tried() -> None:
    assert await reached("hooks.test", "10.0.0.1", "1.1.1.1", "fe80::1") == ["1.1.1.1"]
    assert await reached("hooks.test", "10.0.0.1", "1.1.1.1", allowed="10.0.0.0/8") == ["10.0.0.1", "1.1.1.1"]
    assert await reached("hooks.test", "::ffff:10.0.0.1", allowed="10.0.0.0/8") == ["::ffff:10.0.0.1"]


async def test_localhost_is_this_machine_only() -> None:
    assert await reached("localhost", "::1", "127.0.0.1") == ["::1", "127.0.0.1"]
    with pytest.raises(OSError, match=r"localhost leads to 10\.0\.0\.1"):
        await reached("localhost", "10.0.0.1")
