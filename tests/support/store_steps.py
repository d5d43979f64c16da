"""Tasks on their way through the store: empty, planned, due, claimed, sent, answered, set aside."""

import asyncio
from itertools import count
from typing import Any

from tests.support.time_travel import World
from watchdog.core import policy
from watchdog.core.model import Evidence, Outcome, Reason, Reply, Source
from watchdog.core.policy import Plan, Policy
from watchdog.store.records import Answer, Attempt, Claim, Intent, SetAside
from watchdog.store.tasks import Tasks

APP = 12345
LEASE = 20.0
REPLY = Reply(
    http_status=200,
    code="0",
    message="Success",
    request_id="003151527792559699732",
    data=None,
    excerpt=None,
    clock_offset_seconds=None,
)
_tokens = (f"host/1/{number}" for number in count())


def empty(world: World, task_id: str = "task", room_id: str | None = None, **columns: Any) -> None:
    """Bring about a task that people have just left."""
    world.app.start(task_id, room_id or task_id, user_count=1, **columns)
    world.app.people(room_id or task_id, 0)


def plan(world: World, task_id: str = "task", *, due: float = 45, auto_stop: float = 150) -> int:
    """Plan a task, in seconds from now; return how many plans were taken."""
    since = world.task(task_id)["empty_since"]
    return world.tasks.save_plans([Plan(task_id, since, world.ahead(due), world.ahead(auto_stop))])


def due(world: World, task_id: str = "task", *, auto_stop: float = 105, **columns: Any) -> None:
    """Bring about a task that is due now."""
    empty(world, task_id, **columns)
    assert plan(world, task_id, due=0, auto_stop=auto_stop) == 1


def take(tasks: Tasks, limit: int = 100, **columns: Any) -> list[Claim]:
    options = {"lease_seconds": LEASE, "default_app": APP, **columns}
    return tasks.claim(next(_tokens), limit=limit, **options)[1]


def take_one(world: World) -> Claim:
    (claim,) = take(world.tasks)
    return claim


def names(claims: list[Claim]) -> list[str]:
    return [claim.task.task_id for claim in claims]


def intent(world: World, claim: Claim, evidence: Evidence | None = None) -> Intent:
    return Intent(
        claim, APP, Reason.EMPTY_ROOM, evidence or Evidence(0, world.now, Source.API), claim.task.auto_stop_at
    )


def send(world: World, claim: Claim, evidence: Evidence | None = None) -> Attempt:
    (sent,) = world.ledger.intend([intent(world, claim, evidence)])
    assert sent is not None
    return sent


def answer(world: World, attempt: Attempt, outcome: Outcome, *, wake: float = 2.0) -> Answer:
    if outcome is Outcome.UNKNOWN:
        return attempt.answer(outcome, detail="no answer", wake_seconds=wake)
    return attempt.answer(outcome, replied_at=world.now, reply=REPLY, wake_seconds=wake)


def aside(
    world: World,
    claim: Claim,
    outcome: Outcome | None,
    detail: str = "unconfirmed",
    *,
    observed: Evidence | None = None,
    wake: float = 10.0,
) -> None:
    evidence = observed or claim.task.evidence
    world.tasks.set_aside([SetAside(claim, APP, outcome, Reason.EMPTY_ROOM, detail, evidence, observed, wake)])


async def begun(*coroutines: Any) -> list[asyncio.Task[Any]]:
    """Start coroutines, and let them run until they wait."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    for _ in range(5):
        await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop, not time
    return tasks


def tried(world: World, task_id: str, outcome: Outcome = Outcome.STOPPED, **columns: Any) -> None:
    """Put an attempt on record, now."""
    values = {
        "task_id": task_id,
        "kind": "asr",
        "room_id": "room",
        "app_id": 12345,
        "attempt": 1,
        "reason": "empty_room",
        "outcome": outcome.value,
        "instance": "host-1",
        **columns,
    }
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    world.app.execute(f"INSERT INTO zego_stop_attempts ({names}) VALUES ({marks})", *values.values())


def planned(world: World) -> None:
    """Do what a sweep's first half does."""
    now, found = world.tasks.newly_empty(100)
    world.tasks.save_plans([made for task in found if (made := policy.plan(task, Policy(), now)) is not None])
