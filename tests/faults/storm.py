"""Sends valid callbacks as fast as they are answered, over as many connections as are named; a program of its own.

    python -m tests.faults.storm HOST PORT CONNECTIONS SECRET

Each is the login of another user, numbered from 0, into one of fifty rooms. It repeats nothing. It prints each kind
of answer when it comes for the first time, a line each. When its stdin ends, it prints one JSON object: the numbers
that were ``accepted``, and how many ``answers`` there were of each kind.
"""

import asyncio
import json
import re
import sys
from collections import Counter
from itertools import count

from tests.support.running import APP_ID
from watchdog.clock import SystemClock
from watchdog.core.signing import callback_signature

ROOMS = 50
_Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def login(number: int, secret: str, now: float) -> bytes:
    timestamp, nonce = str(int(now)), f"storm-{number}"
    return json.dumps(
        {
            "event": "room_login",
            "appid": str(APP_ID),
            "timestamp": timestamp,
            "nonce": nonce,
            "signature": callback_signature(secret, timestamp, nonce),
            "room_id": f"storm-{number % ROOMS}",
            "room_seq": "4242",
            "user_account": f"user-{number}",
            "session_id": str(number),
            "login_time": str(int(now * 1000)),
            "user_role": "1",
        }
    ).encode()


async def post(link: _Link, body: bytes) -> tuple[str, bool]:
    """Return the first word of the answer, and whether the connection ends with it."""
    reader, writer = link
    head = f"POST /callbacks/zego HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    writer.write(f"{head}\r\n\r\n".encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = re.search(rb"content-length: (\d+)", answer)
    word = await reader.readexactly(int(length[1]) if length else 0)
    return word.decode().strip(), b"connection: close" in answer


async def storm(host: str, port: int, connections: int, secret: str) -> dict[str, object]:
    """Send until stdin ends."""
    clock, numbers, answers, accepted = SystemClock(), count(), Counter[str](), list[int]()
    until = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))

    async def one() -> None:
        link: _Link | None = None
        while not until.done():
            number = next(numbers)
            try:
                link = link or await asyncio.open_connection(host, port)
                word, is_last = await post(link, login(number, secret, clock.time()))
            except (OSError, EOFError):
                word, is_last = "none", True
            if is_last and link is not None:
                link[1].close()
                link = None
            answers[word] += 1
            if answers[word] == 1:
                print(word, flush=True)  # noqa: T201 - to the test
            if word == "accepted":
                accepted.append(number)
        if link is not None:
            link[1].close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return {"accepted": accepted, "answers": answers}


if __name__ == "__main__":
    host, port, connections, secret = sys.argv[1:]
    sys.stdout.write(json.dumps(asyncio.run(storm(host, int(port), int(connections), secret))))
