"""Whether the daemon did its job: the referee's word on the ledger, and each room's fate as the story has it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from watchdog.core.model import Outcome
from watchdog.demo.application import Row
from watchdog.demo.story import Fate
from watchdog.sandbox import referee


@dataclass(frozen=True, slots=True)
class Verdict:
    """``complaints`` are sentences; without any the demo has shown what it promises."""

    found: referee.Verdict
    complaints: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.complaints

    def summary(self) -> str:
        """The verdict in one line."""
        found = self.found
        return (
            f"{found.stopped_in_time} stopped in time, {found.spared} spared, {len(found.missed)} missed, "
            f"{len(found.wrong_stops)} wrong stops; "
            f"{found.attempts_recorded} attempts, {found.requests_received} requests"
        )


def judge(
    fates: Mapping[str, Fate],
    task_ids: Mapping[str, str],
    log: Iterable[Mapping[str, Any]],
    ledger: Sequence[Row],
) -> Verdict:
    """Compare the sandbox's ``log``, the rows of the ``ledger``, and what was to become of each room."""
    events = list(log)
    rooms = {task_id: room for room, task_id in task_ids.items()}
    watched = [task_id for task_id, room in rooms.items() if fates[room] is Fate.STOPPED]
    found = referee.judge(events, ledger, watched=watched)
    stopped = {event["task_id"] for event in events if event["event"] == "task_stopped" and event["via"] == "api"}
    spared = {row["task_id"] for row in ledger if row["outcome"] == Outcome.SPARED}
    return Verdict(
        found,
        (
            *found.disagreements,
            *(f"{rooms[task_id]}: ZEGO's auto-stop came first." for task_id in found.missed),
            *(f"{rooms[task_id]}: stopped while there were people in it." for task_id in found.wrong_stops),
            *_unlike_their_fate(fates, task_ids, stopped, spared, reported={*found.missed, *found.wrong_stops}),
        ),
    )


def _unlike_their_fate(
    fates: Mapping[str, Fate],
    task_ids: Mapping[str, str],
    stopped: AbstractSet[str],
    spared: AbstractSet[str],
    *,
    reported: AbstractSet[str],
) -> Iterable[str]:
    for room, fate in fates.items():
        task_id = task_ids.get(room)
        if task_id is None:
            yield f"{room}: its task was never started."
        elif task_id in reported:
            continue
        elif fate is Fate.STOPPED and task_id not in stopped:
            yield f"{room}: not stopped by the time the curtain fell."
        elif fate is not Fate.STOPPED and task_id in stopped:
            yield f"{room}: stopped, though it was to be {fate}."
        elif fate is Fate.SPARED and task_id not in spared:
            yield f"{room}: no row says that it was spared."
