"""``events test``: sends one signed sample to the webhook, and says what came back and what to do."""

import asyncio
import difflib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import typer

from watchdog import config
from watchdog.cli.view.events import Tried, print_tried
from watchdog.cli.view.output import show_json
from watchdog.clock import Clock, SystemClock
from watchdog.config.settings import Config
from watchdog.core.events import SAMPLE, EventType, sample
from watchdog.core.webhook import BUSY, message_id, payload
from watchdog.errors import ConfigError, NoAnswer
from watchdog.webhook.addresses import AddressRefused
from watchdog.webhook.client import Answer, WebhookClient
from watchdog.wiring.from_config import notifications

_TEST: Final = "test"
_FAILED: Final = 1
_LATER: Final = 75
_CONFIGURATION: Final = 78


@dataclass(frozen=True, slots=True)
class _Advice:
    """What to do after a failure, and the exit code of the command."""

    next_step: str | None
    exit_code: int


def send_sample(path: Path | None, name: str, *, as_json: bool) -> int:
    """Send the sample and print the answer; return the exit code. Raises ConfigError, typer.BadParameter."""
    event_type = _event_type(name)
    settings = config.load(path)
    if not settings.notify.host:
        raise ConfigError(
            "notify.url is empty, so there is no webhook: set notify.url, notify.secret_file and notify.events; "
            "docs/events.md shows how"
        )
    tried, advice = asyncio.run(_send(settings, event_type, SystemClock()))
    if as_json:
        show_json({**tried.as_row(), "next_step": advice.next_step})
    else:
        print_tried(tried, advice.next_step)
    return advice.exit_code


def _event_type(name: str) -> EventType | None:
    """None for ``test``, which no event has. Raises typer.BadParameter."""
    if name == _TEST:
        return None
    if name in set(EventType):
        return EventType(name)
    near = difflib.get_close_matches(name, [_TEST, *EventType], n=1)
    meant = f"did you mean {near[0]}?" if near else f"write {', '.join([_TEST, *EventType])}"
    raise typer.BadParameter(f"{name!r} is no type of an event; {meant}", param_hint="'--type'")


async def _send(settings: Config, event_type: EventType | None, clock: Clock) -> tuple[Tried, _Advice]:
    target = notifications(settings).target
    assert target is not None  # noqa: S101 - there is a URL
    now = datetime.fromtimestamp(clock.time(), UTC)
    app_id = settings.zego.apps[0].app_id if settings.zego.apps else None
    webhook_id = message_id(SAMPLE, now)
    body = payload(event_type or _TEST, now, sample(event_type, now, app_id))
    client = WebhookClient(target, clock)
    answer: Answer | None = None
    error: NoAnswer | None = None
    began = clock.monotonic()
    try:
        answer = await client.ask(webhook_id, body)
    except NoAnswer as caught:
        error = caught
    finally:
        seconds = clock.monotonic() - began
        await client.aclose()
    tried = Tried(
        host=client.host,
        type=event_type or _TEST,
        webhook_id=webhook_id,
        signatures=len(target.keys),
        milliseconds=round(1000 * seconds),
        status=None if answer is None else answer.status,
        answer="" if answer is None else answer.text,
        error=None if error is None else str(error),
    )
    return tried, _after_answer(answer) if answer is not None else _after_none(error)


def _after_answer(answer: Answer) -> _Advice:
    match answer.status:
        case status if 200 <= status < 300:
            return _Advice(None, 0)
        case status if 300 <= status < 400:
            return _Advice("redirects are not followed: set notify.url to the address that it leads to", _FAILED)
        case 400 | 401 | 403:
            return _Advice(
                "the receiver refuses the request: give it the secret of notify.secret_file, let it verify the body's "
                "bytes as they came, and compare both clocks",
                _FAILED,
            )
        case 404 | 405:
            return _Advice("nothing takes a POST there: correct the path in notify.url", _FAILED)
        case 410:
            return _Advice(
                "410 means that the receiver wants no events, and suspends delivery: correct the receiver or "
                "notify.url, then reload the daemon",
                _FAILED,
            )
        case 413:
            return _Advice("the receiver must take bodies up to 20 kB: raise its limit", _FAILED)
        case status if status in BUSY or answer.retry_after is not None:
            return _Advice(
                "the receiver, or a proxy before it, is busy or down; the daemon waits and tries again", _LATER
            )
        case _:
            return _Advice("look into the receiver's log; the daemon tries each event again, for 24 hours", _FAILED)


def _after_none(error: NoAnswer | None) -> _Advice:
    causes = list(_causes(error))
    if any(isinstance(cause, AddressRefused) for cause in causes):
        # The message has the next step.
        return _Advice(None, _CONFIGURATION)
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return _Advice(
            "TLS failed: the certificate must be valid for the host in notify.url and signed by an authority that this "
            "machine trusts (SSL_CERT_FILE adds one)",
            _FAILED,
        )
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return _Advice("the name in notify.url has no address here: correct it, or the DNS", _LATER)
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return _Advice("nothing listens there: start the receiver, or correct the port in notify.url", _LATER)
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return _Advice(
            "the receiver must answer before it works on the event: let it store the event and answer 2xx at once; if "
            "no connection came about, look for a firewall",
            _LATER,
        )
    return _Advice("see whether the receiver speaks HTTP at that port, and read its log", _LATER)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
