"""What is outside the machine: the sandbox as ZEGO, and a backend that writes to the machine's database."""

import json
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

from tests.support.running import APP_ID
from tests.system.machine import until
from watchdog.sandbox.referee import Verdict, judge

SERVER_SECRET: Final = "planted-server-secret-5d1c"
CALLBACK_SECRET: Final = "planted-callback-secret-77e0"
PORT: Final = 8766
URL: Final = f"http://127.0.0.1:{PORT}/"

_rooms = count(1)
_http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(
    url: str, body: bytes | None = None, *, seconds: float = 10, headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Return status and text; a status that says no is an answer. Raises OSError where there is none."""
    request = urllib.request.Request(url, data=body, headers=dict(headers or {}))  # noqa: S310 - our own loopback
    try:
        with _http.open(request, timeout=seconds) as reply:
            return reply.status, reply.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")


class Vendor:
    """``zego-watchdog sandbox`` as a process of its own, which outlives the machine."""

    def __init__(self, folder: Path) -> None:
        self._output = folder / "sandbox.log"
        server, callback = folder / "sandbox-server-secret", folder / "sandbox-callback-secret"
        server.write_text(SERVER_SECRET)
        callback.write_text(CALLBACK_SECRET)
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "watchdog", "sandbox", f"--port={PORT}", f"--app-id={APP_ID}", "--seed=1"),
                    *(f"--server-secret-file={server}", f"--callback-secret-file={callback}"),
                    *("--concurrency=0", "--start-rate=0", "--stop-rate=200", "--user-num-rate=200"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        until("the sandbox listens", self._listens)

    def _listens(self) -> bool:
        assert self._process.poll() is None, self._output.read_text()
        with suppress(OSError):
            return fetch(f"{URL}_sandbox/state")[0] == 200
        return False

    def tell(self, operation: str, **fields: object) -> dict[str, Any]:
        """Call the control API, and return what it answers."""
        status, text = fetch(f"{URL}_sandbox/{operation}", json.dumps(fields).encode())
        assert status == 200, text
        answer = json.loads(text)
        assert isinstance(answer, dict)
        return answer

    def log(self) -> list[dict[str, Any]]:
        _, text = fetch(f"{URL}_sandbox/log")
        entries = json.loads(text)["events"]
        assert isinstance(entries, list)
        return entries

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=10)


class Database:
    """The machine's SQLite file, in plain SQL, as an application has it."""

    def __init__(self, path: Path) -> None:
        assert path.is_file(), f"the service has made no {path}"
        self._path = path

    def execute(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self._path, isolation_level=None, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement, parameters)]

    def attempts(self) -> list[dict[str, Any]]:
        return self.execute("SELECT * FROM zego_stop_attempts ORDER BY id")

    def statuses(self) -> dict[str, str]:
        return {row["task_id"]: row["status"] for row in self.execute("SELECT task_id, status FROM zego_tasks")}

    def schema(self) -> str:
        (row,) = self.execute("SELECT version_num FROM zego_schema_version")
        return str(row["version_num"])


class Backend:
    """An application that forgets its tasks: it starts them, people come and go, and that is all."""

    def __init__(self, vendor: Vendor, database: Path) -> None:
        self.vendor = vendor
        self.database = Database(database)
        self.started: list[str] = []

    def abandon(self, number: int = 1) -> list[str]:
        """Start tasks, each in a room of its own that nobody is in any more. Returns their TaskIds."""
        tasks = [self.start() for _ in range(number)]
        self.leave(tasks)
        return tasks

    def start(self) -> str:
        """Start a task in a new room; there are people, as the backend says."""
        room = f"room-{next(_rooms)}"
        task = str(self.vendor.tell("start", room=room)["task_id"])
        self.database.execute("INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES (?, ?, 2)", task, room)
        self.started.append(task)
        return task

    def leave(self, tasks: Sequence[str]) -> None:
        for task in tasks:
            self.database.execute("UPDATE zego_tasks SET user_count = 0 WHERE task_id = ? AND status = 'active'", task)

    def have_ended(self, tasks: Sequence[str], *how: str) -> bool:
        """Whether all of these tasks have one of these statuses, else ``stopped``."""
        statuses = self.database.statuses()
        return all(statuses[task] in (how or ("stopped",)) for task in tasks)

    def expect_stopped(self, tasks: Sequence[str], *, seconds: float = 30) -> None:
        until(f"{tasks} are stopped", lambda: self.have_ended(tasks), seconds=seconds, pause=0.1)

    def outcomes(self, task: str) -> list[str]:
        return [row["outcome"] for row in self.database.attempts() if row["task_id"] == task]

    def judge(self) -> Verdict:
        """Compare ledger and sandbox. The writer of the ledger has been killed in between."""
        return judge(self.vendor.log(), self.database.attempts(), watched=self.started, daemon_killed=True)
