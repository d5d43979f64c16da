"""Whether the daemon worked correctly: the referee's verdict, and each room against its expected end. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from watchdog.core.model import Outcome
from watchdog.demo.application import Row
from watchdog.demo.scenario import Expected
from watchdog.sandbox import referee


@dataclass(frozen=True, slots=True)
class Verdict:
    """``complaints`` are sentences; the demo passed if there are none.

    ``left`` are the rooms whose tasks ZEGO ended, as expected: nobody reports who is in them.
    """

    found: referee.Verdict
    complaints: tuple[str, ...]
    left: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.complaints


def judge(
    expected: Mapping[str, Expected],
    task_ids: Mapping[str, Sequence[str]],
    log: Iterable[Mapping[str, Any]],
    ledger: Sequence[Row],
) -> Verdict:
    """Compare the sandbox's ``log``, the rows of the ``ledger``, and the expected end of each room's tasks."""
    events = list(log)
    rooms = {task_id: room for room, ids in task_ids.items() for task_id in ids}
    watched = [ids[0] for room, ids in task_ids.items() if expected[room] in {Expected.STOPPED, Expected.RESTARTED}]
    found = referee.judge(events, ledger, watched=watched)
    stopped = {event["task_id"] for event in events if event["event"] == "task_stopped" and event["via"] == "api"}
    spared = {row["task_id"] for row in ledger if row["outcome"] == Outcome.SPARED}
    complaints = [
        *found.disagreements,
        *(f"{rooms[task_id]}: ZEGO's auto-stop came first." for task_id in found.missed),
        *(f"{rooms[task_id]}: stopped with people in the room." for task_id in found.wrong_stops),
    ]
    for room, end in expected.items():
        task_id, *later = task_ids.get(room, (None,))
        if task_id is None:
            complaints.append(f"{room}: its task was never started.")
        elif task_id in (*found.missed, *found.wrong_stops):
            continue
        elif end in {Expected.STOPPED, Expected.RESTARTED} and task_id not in stopped:
            complaints.append(f"{room}: not stopped before the end of the demo.")
        elif end is Expected.RESTARTED and len(later) != 1:
            complaints.append(f"{room}: people came back, and {len(later)} new tasks were started instead of one.")
        elif end is not Expected.STOPPED and stopped & set(later or [task_id]):
            complaints.append(f"{room}: stopped, but expected: {end}.")
        elif end is Expected.SPARED and task_id not in spared:
            complaints.append(f"{room}: no row has outcome spared.")
    auto_stopped = {row["task_id"] for row in ledger if row["outcome"] == Outcome.AUTO_STOPPED}
    left = (
        room for room, ids in task_ids.items() if expected[room] is Expected.LEFT and auto_stopped.intersection(ids)
    )
    return Verdict(found, tuple(complaints), tuple(left))
