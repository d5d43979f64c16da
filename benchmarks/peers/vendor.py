"""StopRealtimeASRTask as ZEGO's documentation shows it, with httpx2 as its documentation shows it: one client, kept."""

import json
import secrets
from collections.abc import Sequence
from typing import Any

import httpx2 as httpx

from watchdog.clock import SystemClock
from watchdog.core.signing import sign
from watchdog.sandbox.command import EXAMPLE_APP_ID, EXAMPLE_SERVER_SECRET

CONCURRENCY = 64
"""Stops at a time, as many as the daemon is given where it has no pace."""


def limits(connections: int = CONCURRENCY) -> httpx.Limits:
    """So many connections, and all are kept."""
    return httpx.Limits(max_connections=connections, max_keepalive_connections=connections)


def stop(client: httpx.Client, task_id: str) -> None:
    """Raise httpx.HTTPError, or ValueError for an answer that is no success."""
    _check(client.post("/", params=_signed(), json={"TaskId": task_id}))


async def stop_async(client: httpx.AsyncClient, task_id: str) -> None:
    _check(await client.post("/", params=_signed(), json={"TaskId": task_id}))


async def ask_async(client: httpx.AsyncClient, rooms: Sequence[str]) -> None:
    """One DescribeUserNum."""
    _check(await client.get("/", params=_signed("DescribeUserNum") | {"RoomId[]": list(rooms)}))


def _signed(action: str = "StopRealtimeASRTask") -> dict[str, Any]:
    nonce = secrets.token_hex(8)
    timestamp = int(SystemClock().time())
    return {
        "Action": action,
        "AppId": EXAMPLE_APP_ID,
        "SignatureNonce": nonce,
        "Timestamp": timestamp,
        "SignatureVersion": "2.0",
        "Signature": sign(EXAMPLE_APP_ID, nonce, EXAMPLE_SERVER_SECRET, timestamp),
    }


def _check(response: httpx.Response) -> None:
    code = json.loads(response.raise_for_status().content)["Code"]
    if code not in {0, 410001002}:  # stopped, or gone already
        raise ValueError(f"ZEGO answered Code {code}")
