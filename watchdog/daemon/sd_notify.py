"""The service manager's protocol: sd_notify(3), and socket activation.

Own code, because it is short and the libraries do not fit: they either need libsystemd to build, or do not know
MONOTONIC_USEC.
"""

import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Final

_FIRST_DESCRIPTOR: Final = 3  # SD_LISTEN_FDS_START


class ServiceManager:
    """The service manager that started this process; without one all methods do nothing. Never raises or waits."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        address = environ.get("NOTIFY_SOCKET", "")
        # An address that begins with @ is a socket in Linux's abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @property
    def is_there(self) -> bool:
        return self._address.startswith(("/", "\0"))

    @property
    def watchdog_seconds(self) -> float | None:
        """How long it waits for the next ``WATCHDOG=1`` before it ends this process; None: no limit."""
        microseconds = self._environ.get("WATCHDOG_USEC", "")
        ours = self._environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        if not ours or not microseconds.isdecimal() or not int(microseconds):
            return None
        return int(microseconds) / 1_000_000

    def notify(self, **fields: str | int) -> bool:
        """Send one message, such as ``READY=1``; False if it could not be delivered."""
        if not self.is_there:
            return False
        message = "\n".join(f"{name}={' '.join(str(value).splitlines())}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as ours:
                ours.connect(self._address)
                ours.send(message.encode("utf-8", "replace"))
        except (OSError, ValueError):
            return False
        return True

    def listening_sockets(self) -> Sequence[socket.socket]:
        """The listening stream sockets that it has passed to this process (LISTEN_FDS); usually none."""
        number = self._environ.get("LISTEN_FDS", "")
        if self._environ.get("LISTEN_PID") != str(os.getpid()) or not number.isdecimal():
            return ()
        passed = []
        for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(number)):
            with contextlib.suppress(OSError):
                os.set_inheritable(descriptor, False)
                one = socket.socket(fileno=descriptor)
                if one.type == socket.SOCK_STREAM and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    passed.append(one)
                else:
                    one.detach()
        return passed
