"""Checks of the daemon's HTTP server: whether its port is free, or held by a daemon of ours."""

import errno
import http.client
import socket
import subprocess
from collections.abc import Sequence
from typing import Final

from watchdog.cli.checks.findings import Blame, Finding, fail, ok
from watchdog.config.settings import Config
from watchdog.embedded_server import listen
from watchdog.store.reports.health import DaemonRow

_SECONDS: Final = 2.0
_BYTES: Final = 1 << 20
_SOCKET_UNIT: Final = "zego-watchdog.socket"


def check_http(config: Config, daemons: Sequence[DaemonRow]) -> list[Finding]:
    """Whether ``run`` could listen, or one of the ``daemons``, which are alive, does already."""
    if config.http.address is None:
        return []
    host, port = config.http.address
    try:
        listen(host, port, 1).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            told = f"the daemon cannot listen on {config.http.listen}: {error.strerror or error}"
            todo = "set http.listen to an address of this machine, and to a port that its user may open"
            return [fail("http", told, todo, Blame.CONFIGURATION)]
        here = [daemon.instance for daemon in daemons if daemon.host == socket.gethostname()]
        if here and _is_ours(host, port):
            return [ok("http", f"{_served(config)}; {', '.join(here)} listens there")]
        if _systemd_listens():
            return [ok("http", f"{_served(config)}; {_SOCKET_UNIT} listens there")]
        return [
            fail(
                "http",
                f"another process listens on {config.http.listen} already, so the daemon would not start",
                f"find it with: ss -ltnp 'sport = :{port}'; end it, or choose another http.listen",
                Blame.CONFIGURATION,
            )
        ]
    return [ok("http", _served(config))]


def _is_ours(host: str, port: int) -> bool:
    """Whether the process on that port answers like a daemon: with its metrics, or with its question for the token."""
    connection = http.client.HTTPConnection(
        {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host),  # noqa: S104 - compared, not bound
        port,
        timeout=_SECONDS,
    )
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        asked_for = answer.getheader("WWW-Authenticate", "")
        return "zego-watchdog" in asked_for or b"zego_watchdog_" in answer.read(_BYTES)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _systemd_listens() -> bool:
    try:
        command = ["systemctl", "is-active", "--quiet", _SOCKET_UNIT]
        return subprocess.run(command, check=False, timeout=_SECONDS, stderr=subprocess.DEVNULL).returncode == 0  # noqa: S603 - our own words
    except (OSError, subprocess.TimeoutExpired):
        return False


def _served(config: Config) -> str:
    """What the daemon's HTTP server serves; metrics alone are a valid use."""
    callbacks = [str(app.app_id) for app in config.zego.apps if app.callback_secrets]
    taken = (
        f"callbacks of AppId {', '.join(callbacks)}"
        if callbacks
        else "no callbacks, because no app has a callback secret"
    )
    token = "" if config.http.bearer_token is None else " with the token"
    pages = " and the page" if config.http.page else ""
    return f"{config.http.listen}: /metrics{pages}{token}; {taken}"
