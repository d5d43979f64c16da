"""The SQL of ``zego_events`` and ``zego_event_types``: which events are written, and their delivery by webhook.

Triggers write the events (``migrations/sql/0006_*.sql``). A pending event has a ``wake_at``. A claim moves it to the
end of a lease, so what a dead daemon has claimed is claimed again: an event is delivered at least once. An event that
was given up has attempts, but neither ``wake_at`` nor ``delivered_at``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from watchdog.store.engine import reading, storable, writing
from watchdog.store.many import one_of
from watchdog.store.records import Delivery, Event, EventCounts
from watchdog.store.tables import UtcTime, event_types, events, utcnow

IS_PENDING = events.c.wake_at.is_not(None)
IS_UNDELIVERED = sa.and_(
    events.c.wake_at.is_(None),
    events.c.delivered_at.is_(None),
    # A literal, because it is the condition of the partial index.
    events.c.attempts > sa.literal_column("0"),
)

COUNTED: Final = 10_000
"""Pending and undelivered events are counted up to this."""

_ERROR_CHARACTERS: Final = 500
# Two daemons may start at the same time.
_CHOOSE = {
    name: (statement := dialect.insert(event_types)).on_conflict_do_update(
        index_elements=[event_types.c.type], set_={"webhook": statement.excluded.webhook}
    )
    for name, dialect in (("postgresql", postgresql), ("sqlite", sqlite))
}
_DUE = (
    sa.select(events.c.id)
    .where(IS_PENDING, events.c.wake_at <= utcnow())
    .order_by(events.c.wake_at)
    .limit(sa.bindparam("limit", type_=sa.Integer))
    .with_for_update(skip_locked=True)
    .cte("due")
)
_CLAIM = (
    sa.update(events)
    .where(events.c.id == _DUE.c.id)
    .values(
        claimed_by=sa.bindparam("b_instance"),
        wake_at=utcnow(sa.bindparam("lease", type_=sa.Float)),
        attempts=events.c.attempts + 1,
    )
    .returning(*(events.c[name] for name in Event.__slots__))
)
_NEXT = sa.select(
    utcnow().label("now"),
    sa.select(sa.func.min(events.c.wake_at, type_=UtcTime)).where(IS_PENDING).scalar_subquery().label("wake_at"),
)
_WAITING = (
    sa.select(events.c.occurred_at).where(IS_PENDING).order_by(events.c.wake_at).limit(COUNTED).subquery("waiting")
)
_GIVEN_UP_IDS = sa.select(events.c.id).where(IS_UNDELIVERED).limit(COUNTED).subquery("given_up")
_COUNT = sa.select(
    utcnow().label("now"),
    sa.func.count().label("pending"),
    sa.select(sa.func.count()).select_from(_GIVEN_UP_IDS).scalar_subquery().label("undelivered"),
    sa.func.min(_WAITING.c.occurred_at, type_=UtcTime).label("oldest_pending_at"),
).select_from(_WAITING)
_IS_MINE = sa.and_(events.c.claimed_by == sa.bindparam("b_instance"), IS_PENDING)
# An application that is handling an event holds its row for as long as it wants.
_FREE = sa.select(events.c.id).where(one_of(events.c.id, "ids"), _IS_MINE).with_for_update(skip_locked=True)
_DELIVERED = (
    sa.update(events)
    .where(one_of(events.c.id, "ids"), _IS_MINE)
    .values(delivered_at=utcnow(), wake_at=None, claimed_by=None, error=None)
)
_IS_THIS = sa.and_(events.c.id == sa.bindparam("b_id"), _IS_MINE)
_ERROR = sa.func.coalesce(sa.bindparam("b_error", type_=sa.Text), events.c.error)
_LATER = (
    sa.update(events)
    .where(_IS_THIS)
    .values(
        wake_at=utcnow(sa.bindparam("b_wake", type_=sa.Float)),
        claimed_by=None,
        attempts=events.c.attempts - sa.bindparam("b_uncounted", type_=sa.Integer),
        error=_ERROR,
    )
)
_GIVE_UP = sa.update(events).where(_IS_THIS).values(wake_at=None, claimed_by=None, error=_ERROR)
_AGAIN = sa.update(events).values(wake_at=utcnow(), delivered_at=None, attempts=0, claimed_by=None, error=None)
_REDELIVER = _AGAIN.where(one_of(events.c.id, "ids"))
_REDELIVER_GIVEN_UP = _AGAIN.where(
    events.c.id.in_(sa.select(events.c.id).where(IS_UNDELIVERED).limit(sa.bindparam("limit", type_=sa.Integer)))
)


def _undelivered(
    connection: sa.Connection, deliveries: Sequence[Delivery]
) -> Iterator[tuple[sa.Update, Sequence[dict[str, Any]]]]:
    """Yield the statements that write the results of events that were not delivered, with their parameters."""
    later, given_up = list[dict[str, Any]](), list[dict[str, Any]]()
    for one in deliveries:
        if one.delivered:
            continue
        error = None if one.error is None else storable(connection, one.error[:_ERROR_CHARACTERS])
        row = {"b_id": one.event_id, "b_error": error}
        if one.wake_seconds is None:
            given_up.append(row)
        else:
            # An event that was only given back has no error.
            later.append(row | {"b_wake": one.wake_seconds, "b_uncounted": int(error is None)})
    yield from ((statement, rows) for statement, rows in ((_LATER, later), (_GIVE_UP, given_up)) if rows)


def count(connection: sa.Connection) -> EventCounts:
    """Count the events that the webhook has not delivered; what it costs does not depend on the size of the table."""
    return EventCounts(**connection.execute(_COUNT).one()._asdict())


class EventStore:
    def __init__(self, engine: sa.Engine, instance: str) -> None:
        self.engine = engine
        self.instance = instance

    def choose(self, types: Mapping[str, bool]) -> bool:
        """Write events of these types from now on, and no others; True if that is a change.

        The value says whether the webhook delivers the type. Events from before it was true are not delivered, nor are
        events that are still pending when it no longer is.
        """
        query = sa.select(event_types.c.type, event_types.c.webhook)
        with reading(self.engine) as connection:
            if {row.type: row.webhook for row in connection.execute(query)} == types:
                return False
        with writing(self.engine) as connection:
            before = {row.type: row.webhook for row in connection.execute(query.with_for_update())}
            connection.execute(sa.delete(event_types).where(event_types.c.type.not_in(types)))
            if types:
                rows = [{"type": name, "webhook": types[name]} for name in sorted(types)]
                connection.execute(_CHOOSE[connection.dialect.name], rows)
            delivered = [name for name, webhook in types.items() if webhook]
            connection.execute(
                sa.update(events)
                .where(IS_PENDING, events.c.type.not_in(delivered))
                .values(wake_at=None, claimed_by=None, attempts=0)
            )
        return before != types

    def claim(self, limit: int, lease_seconds: float) -> tuple[Sequence[Event], float | None]:
        """Claim at most ``limit`` due events for ``lease_seconds``, those first that were due first.

        Also returns the seconds until the next event is due, at the latest the end of a lease; None if none is pending.
        """
        values = {"limit": limit, "lease": lease_seconds, "b_instance": self.instance}
        with reading(self.engine) as connection:
            now, wake_at = connection.execute(_NEXT).one()
        if wake_at is None or wake_at > now:
            return (), None if wake_at is None else (wake_at - now).total_seconds()
        with writing(self.engine) as connection:
            claimed = [Event(**row._asdict()) for row in connection.execute(_CLAIM, values)]
            now, wake_at = connection.execute(_NEXT).one()
        claimed.sort(key=lambda event: event.id)
        return claimed, None if wake_at is None else max(0.0, (wake_at - now).total_seconds())

    def conclude(self, deliveries: Sequence[Delivery]) -> int:
        """Write the results of claimed events; return how many were written.

        Not written are those of events that this daemon no longer holds, and of events that the application is just
        handling: these are delivered again when their lease is over.
        """
        mine: dict[str, Any] = {"b_instance": self.instance}
        with writing(self.engine) as connection:
            ids = [one.event_id for one in deliveries]
            free = set(connection.execute(_FREE, mine | {"ids": ids}).scalars())
            written = [one for one in deliveries if one.event_id in free]
            if delivered := [one.event_id for one in written if one.delivered]:
                connection.execute(_DELIVERED, mine | {"ids": delivered})
            for statement, rows in _undelivered(connection, written):
                connection.execute(statement, [mine | row for row in rows])
        return len(written)

    def redeliver(self, event_ids: Sequence[int]) -> int:
        """Deliver these events now, as if they had never been; return how many there are."""
        with writing(self.engine) as connection:
            return connection.execute(_REDELIVER, {"ids": event_ids}).rowcount

    def redeliver_undelivered(self, limit: int) -> int:
        """Deliver at most ``limit`` of the events that were given up now; return how many."""
        with writing(self.engine) as connection:
            return connection.execute(_REDELIVER_GIVEN_UP, {"limit": limit}).rowcount
