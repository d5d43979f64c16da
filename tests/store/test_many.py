"""Lists and rows as one parameter, on both databases."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa

from tests.support.time_travel import World
from watchdog.store.engine import reading, writing
from watchdog.store.many import inserting, one_of
from watchdog.store.tables import attempts, room_sessions, tasks, utcnow

HOSTILE = ["plain", "it's", 'a "quoted" one', "back\\slash", "房间", "🙂", "{braces,and}", "%s", "null", ""]


def start_all(world: World) -> None:
    for number, name in enumerate(HOSTILE):
        world.app.start(f"task {number}", name or "empty")


@pytest.mark.parametrize("wanted", [[], ["it's"], HOSTILE])
def test_texts_are_found_whatever_is_in_them(world: World, wanted: list[str]) -> None:
    start_all(world)
    statement = sa.select(tasks.c.room_id).where(one_of(tasks.c.room_id, "rooms"))
    with reading(world.engine) as connection:
        found = set(connection.execute(statement, {"rooms": wanted}).scalars())
    assert found == set(wanted) - {""}


def test_an_expression_may_be_looked_for(world: World) -> None:
    start_all(world)
    statement = sa.select(tasks.c.task_id).where(one_of(tasks.c.room_id + " " + tasks.c.task_id, "pairs"))
    with reading(world.engine) as connection:
        found = connection.execute(statement, {"pairs": ["it's task 1", "it's task 2"]}).scalars().all()
    assert found == ["task 1"]


def row(number: int, text: str | None, at: datetime | None) -> dict[str, object]:
    return {
        "task_id": f"task {number}",
        "kind": "asr",
        "room_id": "room",
        "app_id": 2**40 + number,
        "reason": "manual",
        "outcome": "withheld",
        "message": text,
        "sent_at": at,
        "instance": "host/1",
    }


def test_rows_are_inserted_as_they_are(world: World) -> None:
    at = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
    abroad = at.astimezone(timezone(timedelta(hours=8)))
    new = [row(0, None, None), *(row(number, text, abroad) for number, text in enumerate(HOSTILE, 1))]
    statement = inserting(sa.insert(attempts), list(new[0])).returning(attempts.c.id)
    with writing(world.engine) as connection:
        ids = connection.execute(statement, {"rows": new}).scalars().all()
    columns = [attempts.c[name] for name in new[0]]
    with reading(world.engine) as connection:
        found = connection.execute(sa.select(*columns).order_by(attempts.c.task_id)).mappings().all()
        numbers = connection.execute(sa.select(attempts.c.id).where(one_of(attempts.c.id, "ids")), {"ids": ids}).all()
    expected = [row(0, None, None), *(row(number, text, at) for number, text in enumerate(HOSTILE, 1))]
    assert [dict(one) for one in found] == sorted(expected, key=lambda one: str(one["task_id"]))
    assert len(numbers) == len(new)


def test_other_columns_get_the_same_in_each_row(world: World) -> None:
    new = [{"app_id": 1, "room_id": "room", "room_session_id": session} for session in ("1", "2")]
    statement = inserting(sa.insert(room_sessions), list(new[0]), seen_at=utcnow(-5.0), closed_at=utcnow())
    with writing(world.engine) as connection:
        connection.execute(statement, {"rows": new})
    with reading(world.engine) as connection:
        found = connection.execute(sa.select(room_sessions.c.closed_at, room_sessions.c.seen_at)).all()
    assert [closed - seen for closed, seen in found] == [timedelta(seconds=5)] * 2


def test_a_value_that_json_does_not_have_is_named(world: World) -> None:
    statement = inserting(sa.insert(attempts), ["message"])
    with writing(world.engine) as connection, pytest.raises(sa.exc.StatementError, match="bytes"):
        connection.execute(statement, {"rows": [{"message": b"bytes"}]})
