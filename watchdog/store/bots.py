"""The SQL of bots: the users that tasks bring into their rooms (``zego_tasks.bot_user_id``)."""

from typing import Final

import sqlalchemy as sa

from watchdog.store.engine import reading
from watchdog.store.tables import BRINGS_USER, tasks

_ANY: Final = sa.select(tasks.c.bot_user_id).where(tasks.c.bot_user_id.is_not(None)).limit(1)
_OF_ROOM: Final = (
    sa.select(tasks.c.bot_user_id)
    .where(
        BRINGS_USER,
        tasks.c.room_id == sa.bindparam("b_room_id"),
        sa.func.coalesce(tasks.c.app_id, sa.bindparam("default_app", type_=sa.BigInteger))
        == sa.bindparam("b_app_id", type_=sa.BigInteger),
    )
    .distinct()
)


class BotStore:
    def __init__(self, engine: sa.Engine, default_app: int | None = None) -> None:
        """``default_app`` is the AppId of tasks without one."""
        self._engine = engine
        self._default_app = default_app

    def are_known(self) -> bool:
        """Whether any task in the table brought a user along; reads one entry of an index that has only such tasks."""
        with reading(self._engine) as connection:
            return connection.execute(_ANY).first() is not None

    def of(self, app_id: int, room_id: str) -> list[str]:
        """Return the ids of the users that the room's tasks bring along, those that ended just now included."""
        values = {"b_app_id": app_id, "b_room_id": room_id, "default_app": self._default_app}
        with reading(self._engine) as connection:
            return list(connection.execute(_OF_ROOM, values).scalars())
