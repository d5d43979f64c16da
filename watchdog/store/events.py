"""The SQL of ``zego_events`` and ``zego_event_types``: which events are written, and their delivery by webhook.

Triggers write the events (``migrations/sql/0006_*.sql``). A pending event has a ``wake_at``. A claim moves it to the
end of a lease, so what a dead daemon has claimed is claimed again: an event is delivered at least once. An event that
was given up has attempts, but neither ``wake_at`` nor ``delivered_at``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from watchdog.store.engine import reading, storable, writing
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
_FREE = (
    sa.select(events.c.id)
    .where(events.c.id.in_(sa.bindparam("ids", expanding=True)), _IS_MINE)
    .with_for_update(skip_locked=True)
)
_DELIVERED = (
    sa.update(events)
    .where(events.c.id.in_(sa.bindparam("ids", expanding=True)), _IS_MINE)
    .values(delivered_at=utcnow(), wake_at=None, claimed_by=None, error=None)
)
_NOT_DELIVERED = (
    sa.update(events)
    .where(events.c.id == sa.bindparam("b_id"), _IS_MINE)
    .values(wake_at=utcnow(sa.bindparam("b_wake", type_=sa.Float)), claimed_by=None, error=sa.bindparam("b_error"))
)
_GIVEN_UP = _NOT_DELIVERED.values(wake_at=None)
_NOT_ATTEMPTED = (
    sa.update(events)
    .where(events.c.id == sa.bindparam("b_id"), _IS_MINE)
    .values(wake_at=utcnow(sa.bindparam("b_wake", type_=sa.Float)), claimed_by=None, attempts=events.c.attempts - 1)
)
_REDELIVER = (
    sa.update(events)
    .where(events.c.id == sa.bindparam("b_id"))
    .values(wake_at=utcnow(), delivered_at=None, attempts=0, claimed_by=None, error=None)
)


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
        by_statement: list[tuple[sa.Update, list[dict[str, Any]]]] = [
            (_NOT_DELIVERED, []),
            (_GIVEN_UP, []),
            (_NOT_ATTEMPTED, []),
        ]
        delivered: list[int] = []
        with writing(self.engine) as connection:
            ids = [one.event_id for one in deliveries]
            free = set(connection.execute(_FREE, mine | {"ids": ids}).scalars())
            for one in deliveries:
                if one.event_id not in free:
                    continue
                if one.delivered:
                    delivered.append(one.event_id)
                    continue
                row = mine | {"b_id": one.event_id}
                if one.error is None and one.wake_seconds is not None:
                    by_statement[2][1].append(row | {"b_wake": one.wake_seconds})
                    continue
                row["b_error"] = storable(connection, (one.error or "")[:_ERROR_CHARACTERS])
                if one.wake_seconds is None:
                    by_statement[1][1].append(row)
                else:
                    by_statement[0][1].append(row | {"b_wake": one.wake_seconds})
            changed = connection.execute(_DELIVERED, mine | {"ids": delivered}).rowcount if delivered else 0
            for statement, rows in by_statement:
                if rows:
                    changed += connection.execute(
                        statement, rows, execution_options={"preserve_rowcount": True}
                    ).rowcount
        return changed

    def redeliver(self, event_id: int) -> bool:
        """Deliver an event now, as if it had never been; False if there is no such event."""
        with writing(self.engine) as connection:
            return connection.execute(_REDELIVER, {"b_id": event_id}).rowcount == 1
