"""Checks of the connection to ZEGO: the secrets, the clock, the hosts."""

import asyncio
from typing import Final, assert_never
from urllib.parse import urlsplit

from watchdog.cli.checks.findings import Blame, Finding, fail, failed, ok, warn
from watchdog.clock import Clock
from watchdog.config.settings import Config
from watchdog.core.kinds import KINDS
from watchdog.core.outcomes import ReplyClass, classify
from watchdog.errors import RequestError, in_words
from watchdog.network.certificates import tls_context
from watchdog.wiring.from_config import zego_client
from watchdog.zego.client import ZegoClient
from watchdog.zego.transport import proxy_to

_NO_SUCH_ROOM: Final = "zego-watchdog-check"
"""A room that does not exist: asking about it tests everything and reads no data."""

_CLOCK_SECONDS: Final = 60.0
"""ZEGO tolerates ten minutes; an offset above one minute is still a fault of this machine."""


async def check_vendor(config: Config, clock: Clock) -> list[Finding]:
    seconds = config.stop.request_timeout_seconds
    findings = [await _host(config.zego.asr_url, "zego.asr_url", seconds)]
    # The others only if somebody chose them: few use all kinds, and a firewall need not let all through.
    chosen = {name: url for name, url in config.zego.urls.model_dump().items() if url != KINDS[name].url}
    findings += [await _host(url, f"zego.urls.{name}", seconds) for name, url in chosen.items()]
    if not config.zego.rtc_url:
        return [*findings, ok("rooms", "zego.rtc_url is empty: only the application's hints are used")]
    client = zego_client(config, clock)
    try:
        for app in config.zego.apps:
            findings += await _ask_about_a_room(client, app.app_id)
    finally:
        await client.aclose()
    return findings


async def _ask_about_a_room(client: ZegoClient, app_id: int) -> list[Finding]:
    """Whether ZEGO accepts our signature, tested with a request that only reads."""
    try:
        reply = (await client.user_counts(app_id, [_NO_SUCH_ROOM])).reply
        clock = _vendor_clock(reply.clock_offset_seconds)
        if classify(None, reply) is ReplyClass.CLOCK:
            # The client has now learned the clock offset; only the second answer tells whether the secret is right.
            reply = (await client.user_counts(app_id, [_NO_SUCH_ROOM])).reply
    except RequestError as error:
        return failed("rooms", error, "allow this machine to connect to zego.rtc_url: check DNS, firewall, proxy")
    answer = f"AppId {app_id}: ZEGO answers code {reply.code or '-'} ({reply.message or f'HTTP {reply.http_status}'})"
    if reply.request_id:
        answer += f", RequestId {reply.request_id}"
    match classify(None, reply):
        case ReplyClass.STOPPED:
            return [ok("rooms", f"AppId {app_id}: ZEGO accepts the secret and reports who is in a room"), *clock]
        case ReplyClass.CREDENTIALS:
            todo = "the ServerSecret does not match this AppId: copy it again from the ZEGO console"
            return [fail("rooms", answer, todo, Blame.CONFIGURATION), *clock]
        case ReplyClass.CONFIGURATION | ReplyClass.REJECTED | ReplyClass.GONE:
            todo = "compare the AppId with the ZEGO console, and enable its services there"
            return [fail("rooms", answer, todo, Blame.CONFIGURATION), *clock]
        case ReplyClass.CLOCK:
            todo = "correct this machine's clock: ZEGO rejects signatures more than ten minutes off"
            return [fail("rooms", answer, todo), *clock]
        case ReplyClass.THROTTLED:
            return [warn("rooms", answer, "lower stop.occupancy_requests_per_second, or check again later"), *clock]
        case ReplyClass.TRANSIENT | ReplyClass.UNEXPECTED:
            return [fail("rooms", answer, "check again later", Blame.REACHABILITY), *clock]
        case unexpected:
            assert_never(unexpected)


def _vendor_clock(offset: float | None) -> list[Finding]:
    if offset is None:
        return []
    differs = f"ZEGO's clock differs from this machine's by {round(offset):+d} s"
    if abs(offset) <= _CLOCK_SECONDS:
        return [ok("ZEGO's clock", differs)]
    return [
        warn("ZEGO's clock", f"{differs}; the daemon corrects for it", "synchronise this machine with a time server")
    ]


async def _host(url: str, key: str, timeout_seconds: float) -> Finding:
    """Whether a host that stops tasks can be reached. Only connects: any request to it might stop a task."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if proxy := proxy_to(parts.scheme, host):
        return ok("stops", f"requests to {host} go through the proxy {urlsplit(proxy).hostname}; not tested")
    encrypted = parts.scheme == "https"
    port = parts.port or (443 if encrypted else 80)
    try:
        tls = tls_context("ZEGO's") if encrypted else None
        async with asyncio.timeout(timeout_seconds):
            _, writer = await asyncio.open_connection(host, port, ssl=tls)
            writer.close()
            await writer.wait_closed()
    except (OSError, UnicodeError) as error:
        late = isinstance(error, TimeoutError)
        reason = f"no connection within {timeout_seconds:g} s" if late else in_words(error)
        todo = f"allow this machine to connect to {key}: check DNS, firewall, certificates"
        return fail("stops", f"{host} port {port}: {reason}", todo, Blame.REACHABILITY)
    return ok("stops", f"{host} port {port} can be reached" + (", encrypted" if encrypted else ""))
