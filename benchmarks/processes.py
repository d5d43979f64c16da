"""The real programs, each a process of its own: a sandbox without limits, and daemons beside it.

And what processes cost: processor time and memory of a process with all its descendants, from /proc.
"""

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2 as httpx
import yaml

from watchdog.clock import SystemClock
from watchdog.sandbox.command import EXAMPLE_APP_ID, EXAMPLE_SERVER_SECRET

CALLBACK_SECRET: Final = "secret"  # noqa: S105 - the vendor's published example
_WEBHOOK_SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - the specification's example
_ROOT: Final = Path(__file__).parent.parent
_ENDS_WITHIN_SECONDS: Final = 30
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Running:
    """A process and where it listens, with a slash at the end."""

    process: asyncio.subprocess.Process
    url: str

    def cpu_seconds(self) -> float:
        """Processor time so far, in all its threads."""
        return cpu_seconds([self.process.pid])

    def resident_bytes(self) -> int:
        """Memory that it holds at present."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def cpu_seconds(roots: Iterable[int]) -> float:
    """Processor time so far of these processes and all their descendants, the ended ones included."""
    ticks = 0
    for pid in _family(roots):
        with contextlib.suppress(OSError):  # it has just ended, and its parent has it
            ticks += sum(map(int, _stat(pid)[11:15]))
    return ticks / _TICKS


def memory_bytes(roots: Iterable[int]) -> int:
    """Memory of these processes and their descendants; what several of them share is counted once (PSS)."""
    held = 0
    for pid in _family(roots):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
            held += next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return held * 1024


def _family(roots: Iterable[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, ())
    return found


def _stat(pid: int) -> list[str]:
    """The fields after the name, which may have spaces in it."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()


@asynccontextmanager
async def process(
    *arguments: str,
    out: int = asyncio.subprocess.DEVNULL,
    take: int = asyncio.subprocess.DEVNULL,
    program: str = sys.executable,
    variables: Mapping[str, str] | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """``python ARGUMENTS``, with nothing of this shell's configuration; ended with the context.

    ``out`` and ``take`` are its standard output and input; ``variables`` are added to its environment.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ZEGO_WATCHDOG_")}
    running = await asyncio.create_subprocess_exec(
        *(program, *arguments),
        stdin=take,
        stdout=out,
        env=environment | {"NO_PROXY": "127.0.0.1"} | dict(variables or {}),
        cwd=_ROOT,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                running.terminate()
        try:
            await asyncio.wait_for(running.wait(), _ENDS_WITHIN_SECONDS)
        except TimeoutError:
            # Nothing is measured any more, so the process may be killed.
            running.kill()
            await running.wait()


@asynccontextmanager
async def sandbox(**limits: int) -> AsyncIterator[Running]:
    """A fake ZEGO for AppId 12345; ``limits`` in requests a second, such as ``stop_rate=10``, else there are none."""
    command = ["-m", "watchdog", "sandbox", "--port", "0", "--concurrency", "0"]
    for name in ("start_rate", "stop_rate", "user_num_rate"):
        command += [f"--{name.replace('_', '-')}", str(limits.get(name, 0))]
    async with process(*command, out=asyncio.subprocess.PIPE) as running:
        assert running.stdout is not None  # noqa: S101 - a pipe was asked for
        first = (await running.stdout.readline()).decode()
        yield Running(running, next(word for word in first.split() if word.startswith("http://")))


@asynccontextmanager
async def daemon(
    database_url: str,
    vendor: str,
    sections: Mapping[str, Mapping[str, Any]],
    *,
    program: Sequence[str] = ("-m", "watchdog"),
) -> AsyncIterator[Running]:
    """A daemon that is ready. ``sections`` are merged into a configuration without a pace, grace 1 s.

    Secrets are in the files ``server``, ``callback`` and ``webhook``. ``program`` is what Python runs.
    """
    with tempfile.TemporaryDirectory(prefix="zego-bench-") as name:
        folder = Path(name)
        secrets = {"server": EXAMPLE_SERVER_SECRET, "callback": CALLBACK_SECRET, "webhook": _WEBHOOK_SECRET}
        for secret, content in secrets.items():
            (folder / secret).write_text(content)
            (folder / secret).chmod(0o600)
        app = {"app_id": EXAMPLE_APP_ID, "server_secret_file": "server", "callback_secret_file": "callback"}
        port = free_port()
        config: dict[str, dict[str, Any]] = {
            "database": {"url": database_url},
            "zego": {"apps": [app], "asr_url": vendor, "rtc_url": vendor},
            "policy": {"grace_seconds": 1, "never_joined_grace_seconds": 1, "confirm_seconds": 0},
            "schedule": {"poll_seconds": 0.5, "occupancy_poll_seconds": 0},
            "stop": {"requests_per_second": 0, "occupancy_requests_per_second": 0},
            "http": {"listen": f"127.0.0.1:{port}"},
            "log": {"level": "error"},
        }
        for section, keys in sections.items():
            config.setdefault(section, {}).update(keys)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        async with process(*program, "--config", str(folder / "config.yaml"), "run") as running:
            url = f"http://127.0.0.1:{port}/"
            await _answers(f"{url}readyz")
            yield Running(running, url)


async def _answers(url: str) -> None:
    clock = SystemClock()
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(300):
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(url)).status_code == httpx.codes.OK:
                    return
            await clock.sleep(0.1)
    raise TimeoutError(f"{url} does not answer")


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
