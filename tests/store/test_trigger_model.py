"""Any sequence of hints, on both databases, against a model of the rules in Python."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.time_travel import World

PLAN = ("due_at", "auto_stop_at", "wake_at")
FINAL = ("stopped", "gone", "auto_stopped", "failed", "released")


@dataclass(frozen=True)
class Model:
    """The part of a row that hints move."""

    user_count: int | None = None
    user_count_at: datetime | None = None
    user_count_source: str | None = None
    last_occupied_at: datetime | None = None
    vendor_occupied_at: datetime | None = None
    empty_since: datetime | None = None
    due_at: datetime | None = None
    auto_stop_at: datetime | None = None
    wake_at: datetime | None = None
    claimed_by: str | None = None
    hold_until: datetime | None = None
    status: str = "active"

    def hinted(self, now: datetime, number: int | None, given: Mapping[str, Any]) -> "Model":
        source: str | None = given.get("user_count_source", self.user_count_source)
        stored = self.user_count_at or now
        at: datetime = given.get("user_count_at") or stored
        new_time = given.get("user_count_at") not in {None, self.user_count_at}
        if self.user_count_at is not None and at < stored:
            return self
        if number is None:
            source = None
        elif source is None or (source == self.user_count_source and not new_time):
            source = "app"
        row = replace(
            self, user_count=number, user_count_at=min(at, now) if new_time else now, user_count_source=source
        )
        if number == 0:
            return row if self.user_count == 0 else replace(row, empty_since=row.user_count_at)
        if number is not None:
            row = replace(row, last_occupied_at=row.user_count_at)
            if source in {"api", "callback"}:
                row = replace(row, vendor_occupied_at=row.user_count_at)
        return replace(row, empty_since=None).unplanned()

    def unplanned(self) -> "Model":
        return replace(self, due_at=None, auto_stop_at=None, wake_at=self.wake_at if self.claimed_by else None)

    def held(self, until: datetime | None) -> "Model":
        row = replace(self, hold_until=until)
        return row if until == self.hold_until or self.status != "active" else row.unplanned()

    def ended(self) -> "Model":
        return replace(self, status="released", wake_at=None, claimed_by=None)


Step = tuple[str, Any]
ABSENT = object()
AS_STORED = object()

seconds = st.sampled_from([-40.0, -5.0, -0.25, 0.0, 0.25, 30.0])
hints = st.tuples(
    st.sampled_from([0, 0, 1, 4, None]),
    st.one_of(st.just(ABSENT), st.none(), st.just(AS_STORED), seconds),
    st.sampled_from([ABSENT, None, "app", "callback", "api"]),
)
steps = st.one_of(
    st.tuples(st.just("hint"), hints),
    st.tuples(st.just("hint"), hints),
    st.tuples(st.just("wait"), st.sampled_from([0.125, 1.0, 40.0])),
    st.tuples(st.just("plan"), st.none()),
    st.tuples(st.just("claim"), st.booleans()),
    st.tuples(st.just("hold"), st.sampled_from([None, 0, 60])),
    st.tuples(st.just("end"), st.none()),
)
_task_ids = (f"task-{number}" for number in count())


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=st.lists(steps, min_size=1, max_size=12))
def test_any_sequence_gives_the_same_row_on_both_databases(
    sqlite_world: World, postgresql_world: World, sequence: list[Step]
) -> None:
    worlds = (sqlite_world, postgresql_world)
    task_id = next(_task_ids)
    for world in worlds:
        world.app.start(task_id, task_id)
    model = Model()
    for name, argument in sequence:
        model = step(worlds, task_id, model, name, argument)
        for world in worlds:
            row = world.task(task_id)
            assert {name: row[name] for name in vars(model)} == vars(model), world.dialect
    for world in worlds:
        world.app.release(task_id)


def step(worlds: tuple[World, ...], task_id: str, model: Model, name: str, argument: Any) -> Model:
    """Do one thing in every world, and say what should come of it."""
    now = worlds[0].now
    if name == "wait":
        for world in worlds:
            world.advance(argument)
        return model
    if name == "hint":
        number, at, source = argument
        given = observation(model, now, at, source)
        for world in worlds:
            world.app.people(task_id, number, **given)
        return model.hinted(now, number, given) if model.status == "active" else model
    changes, after = change(model, now, name, argument)
    for world in worlds:
        if changes:
            world.app.change(task_id, **changes)
    return after


def observation(model: Model, now: datetime, at: Any, source: Any) -> dict[str, Any]:
    """Return the columns that a hint gives besides its number."""
    given: dict[str, Any] = {}
    if at is not ABSENT:
        moment = now + timedelta(seconds=at) if isinstance(at, float) else None
        given["user_count_at"] = model.user_count_at if at is AS_STORED else moment
    if source is not ABSENT:
        given["user_count_source"] = source
    return given


def change(model: Model, now: datetime, name: str, argument: Any) -> tuple[dict[str, Any], Model]:
    """Return the columns to be written, if any, and what should come of it."""
    match name:
        case "plan" if model.empty_since is not None and model.wake_at is None and model.status == "active":
            planned: dict[str, Any] = dict.fromkeys(PLAN, now + timedelta(seconds=45))
            return planned, replace(model, **planned)
        case "claim" if model.wake_at is not None:
            token = "host/1" if argument else None
            return {"claimed_by": token}, replace(model, claimed_by=token)
        case "hold":
            until = None if argument is None else now + timedelta(seconds=argument)
            return {"hold_until": until}, model.held(until)
        case "end":
            return {"status": "released"}, model.ended()
        case _:
            return {}, model
