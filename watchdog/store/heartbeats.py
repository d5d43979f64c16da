"""The SQL of ``zego_daemons``: which daemons are alive, and since when the watch has been unbroken."""

import os
from typing import Final

import sqlalchemy as sa

from watchdog.core.model import Mode
from watchdog.store.engine import writing
from watchdog.store.records import Activity, Heartbeat, Instance
from watchdog.store.tables import daemons, utcnow

ALIVE_SECONDS: Final = 15.0
"""A daemon not seen for longer does not count as alive: three heartbeats."""

ENDED: Final = "ended"
"""The ``mode`` of a daemon that has shut down in good order."""

_MINE = daemons.c.instance == sa.bindparam("b_instance")
IS_ALIVE = sa.and_(daemons.c.seen_at >= utcnow(-ALIVE_SECONDS), daemons.c.mode != ENDED)
ELDEST = sa.select(daemons.c.instance).where(IS_ALIVE).order_by(daemons.c.started_at, daemons.c.instance).limit(1)
_OURS: Final[set[str]] = set()
"""The daemons of this process; tests and the simulation run several."""

_OF_HOST = daemons.c.host == sa.bindparam("b_host")
_BEAT = sa.update(daemons).where(_MINE)
_LOOK = sa.select(
    utcnow().label("now"),
    *(
        sa.select(column).order_by(daemons.c.seen_at.desc()).limit(1).scalar_subquery().label(name)
        for column, name in ((daemons.c.seen_at, "latest_seen_at"), (daemons.c.watching_since, "watching_since"))
    ),
    sa.select(sa.func.count()).where(IS_ALIVE, ~_MINE).scalar_subquery().label("others"),
    sa.select(sa.func.count())
    .where(IS_ALIVE, ~_MINE, daemons.c.mode == Mode.ENFORCE)
    .scalar_subquery()
    .label("enforcing"),
    sa.select(daemons.c.guard_released_until).where(_MINE).scalar_subquery().label("released_until"),
)


class Heartbeats:
    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def beat(
        self, instance: Instance, gap_seconds: float, *, fresh: bool, activity: Activity | None = None
    ) -> Heartbeat:
        """Report that this daemon is alive; ``fresh`` marks the first heartbeat of a process.

        The watch is unbroken as long as some daemon has been seen within ``gap_seconds``; otherwise it begins anew.
        """
        with writing(self.engine) as connection:
            found = connection.execute(_LOOK, {"b_instance": instance.instance}).one()
            now, latest = found.now, found.latest_seen_at
            is_gap = latest is None or (now - latest).total_seconds() > gap_seconds
            since = now if is_gap else found.watching_since
            mine = {
                **{name: getattr(instance, name) for name in Instance.__slots__},
                **{name: getattr(activity or Activity(), name) for name in Activity.__slots__},
                "watching_since": since,
                "seen_at": now,
            }
            updated = 0
            if fresh:
                self._end_dead(connection, instance)
                found = connection.execute(_LOOK, {"b_instance": instance.instance}).one()
            else:
                updated = connection.execute(_BEAT, {**mine, "b_instance": instance.instance}).rowcount
            if not updated:
                connection.execute(sa.insert(daemons).values(**mine, started_at=now))
        return Heartbeat(now, since, found.others + 1, found.enforcing, found.released_until)

    @staticmethod
    def _end_dead(connection: sa.Connection, instance: Instance) -> None:
        """Mark daemons of this host as ended whose processes are gone, so that a restarted one has their share at once.

        A daemon that is marked wrongly, as in another process namespace of the same host name, corrects that with its
        next heartbeat.
        """
        of_host = sa.select(daemons.c.instance, daemons.c.pid).where(_OF_HOST, IS_ALIVE)
        alive = connection.execute(of_host, {"b_host": instance.host}).all()
        dead = [row.instance for row in alive if row.instance not in _OURS and not _is_running(row.pid)]
        _OURS.add(instance.instance)
        if dead:
            connection.execute(sa.update(daemons).where(daemons.c.instance.in_(dead)).values(mode=ENDED))

    def depart(self, instance: str) -> None:
        """Mark this daemon as ended, so that the others take over its share at once; ``status`` still shows its row."""
        with writing(self.engine) as connection:
            connection.execute(sa.update(daemons).where(daemons.c.instance == instance).values(mode=ENDED))


def _is_running(pid: int) -> bool:
    """Whether another process of this host has the number ``pid``."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
