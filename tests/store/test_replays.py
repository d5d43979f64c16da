"""Which callbacks came before, whichever of a group they are in; what follows from it is in test_callbacks."""

import sqlalchemy as sa

from tests.support.time_travel import World
from watchdog.core.callbacks import RoomCreated, Seal
from watchdog.store.engine import writing
from watchdog.store.replays import Use, remember, use_of
from watchdog.store.tables import callbacks_seen

NEW, COPY, OTHER_BODY = (False, False), (True, False), (False, True)


def use(world: World, number: int, body: bytes) -> Use:
    now = world.clock.time()
    return use_of(
        RoomCreated(Seal(1, now, str(int(now)), f"{number:06}", f"signature-{number}"), "room", "1", world.now), body
    )


def seen(world: World, *uses: Use | None) -> list[tuple[bool, bool]]:
    with writing(world.engine) as connection:
        return list(remember(connection, uses))


def test_within_a_group_and_in_the_next_one(world: World) -> None:
    first, copy, forged = use(world, 1, b"a"), use(world, 1, b"a"), use(world, 1, b"b")
    assert seen(world, first, copy, use(world, 2, b"a"), forged) == [NEW, COPY, NEW, OTHER_BODY]
    assert seen(world, use(world, 1, b"c"), copy, forged, use(world, 3, b"a")) == [OTHER_BODY, COPY, COPY, NEW]


def test_what_has_no_signature_is_new_and_is_not_stored(world: World) -> None:
    assert seen(world, None, None) == [NEW, NEW]
    with writing(world.engine) as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(callbacks_seen)).scalar_one() == 0
