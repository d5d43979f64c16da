"""Whether a task may be stopped: ZEGO's answer, hints and their age."""

import httpx2 as httpx
import pytest

from tests.support.bench import bench, empty_room, reply
from tests.support.time_travel import World


async def test_admins_are_not_people(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it)
        it.vendor.admins["room"] = 2
        await it.after(45)
        assert it.outcomes() == ["stopped"]


@pytest.mark.parametrize(
    "broken",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        reply(206),
        httpx.Response(502, text="<html>bad gateway</html>"),
        reply(0, Data={"UserCountList": []}),
        reply(0, Data={"UserCountList": [{"RoomId": "room", "UserCount": -1, "AdminUserCount": 0}]}),
    ],
    ids=["refused", "time-out", "throttled", "html", "room missing", "negative"],
)
async def test_without_the_vendors_word_nothing_is_sent_and_that_is_said_once(
    world: World, broken: httpx.Response | Exception
) -> None:
    async with bench(world) as it:
        await empty_room(it)
        it.vendor.count_replies += [broken] * 3
        await it.after(45)
        await it.after(5)
        await it.after(5)
        assert it.vendor.stops == []
        (row,) = world.attempts("t")
        assert (row["outcome"], row["detail"]) == ("withheld", "unconfirmed" if no_answer(broken) else "no_evidence")

        await it.after(10)
        assert it.outcomes() == ["withheld", "stopped"]


def no_answer(broken: httpx.Response | Exception) -> bool:
    return isinstance(broken, Exception) or broken.status_code != 200 or broken.json()["Code"] != 0


async def test_when_possible_takes_a_fresh_hint_for_an_answer_that_does_not_come(world: World) -> None:
    async with bench(world, policy={"verify": "when_possible"}) as it:
        await empty_room(it, "fresh", "fresh")
        await empty_room(it, "stale", "stale", grace_seconds=60, max_idle_seconds=1800)
        world.app.change("stale", user_count_at=world.ago(400))
        it.vendor.count_replies += [httpx.ConnectError("refused")] * 2
        await it.after(45)
        await it.after(15)
        assert it.outcomes("fresh") == ["stopped"]
        assert world.attempts("fresh")[0]["evidence_source"] == "app"
        assert [(row["outcome"], row["detail"]) for row in world.attempts("stale")] == [("withheld", "stale_hint")]


async def test_when_possible_does_not_take_absence_for_emptiness(world: World) -> None:
    async with bench(world, policy={"verify": "when_possible"}) as it:
        await empty_room(it)
        it.vendor.count_replies.append(reply(0, Data={"UserCountList": []}))
        await it.after(45)
        assert [(row["outcome"], row["detail"]) for row in world.attempts("t")] == [("withheld", "no_evidence")]


async def test_verify_off_asks_nobody(world: World) -> None:
    async with bench(world, policy={"verify": "off"}) as it:
        await empty_room(it)
        it.vendor.people["room"] = 5
        await it.after(45)
        assert it.vendor.asked == []
        assert it.outcomes() == ["stopped"]


async def test_after_a_gap_a_hint_alone_is_not_enough(world: World) -> None:
    world.app.start("t", "room", user_count=2)
    world.app.people("room", 0)
    world.advance(100)
    async with bench(world, policy={"verify": "off"}) as it:
        await it.sweep()
        await it.after(10)
        assert [(row["outcome"], row["detail"]) for row in world.attempts("t")] == [("withheld", "hint_before_gap")]
        world.app.people("room", 0)
        await it.after(10)
        assert it.outcomes() == ["withheld", "stopped"]


async def test_a_stale_answer_is_asked_for_again_before_the_request(world: World) -> None:
    """People came while we waited for our turn: the first answer must not be acted upon."""

    def slow_once() -> None:
        it.vendor.before_count = lambda: it.vendor.people.update(room=1)
        world.advance(6)

    async with bench(world) as it:
        await empty_room(it)
        it.vendor.before_count = slow_once
        await it.after(45)
        assert len(it.vendor.asked) == 2
        assert it.vendor.stops == []
        assert it.outcomes() == ["spared"]
