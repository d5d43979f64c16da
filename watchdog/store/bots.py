"""The SQL of bots: the users that active tasks bring into their rooms (``zego_tasks.bot_user_id``)."""

from typing import Final

import sqlalchemy as sa

from watchdog.store.engine import reading
from watchdog.store.tables import ACTIVE, tasks

# As in the condition of the index zego_tasks_bots.
_BRINGS_ONE: Final = sa.and_(ACTIVE, tasks.c.bot_user_id.is_not(None))
_ANY: Final = sa.select(tasks.c.bot_user_id).where(_BRINGS_ONE).limit(1)
_OF_ROOM: Final = (
    sa.select(tasks.c.bot_user_id)
    .where(
        _BRINGS_ONE,
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
        """Whether any active task brings a user along; reads one entry of an index that holds only such tasks."""
        with reading(self._engine) as connection:
            return connection.execute(_ANY).first() is not None

    def of(self, app_id: int, room_id: str) -> list[str]:
        """Return the ids of the users that the room's active tasks bring along."""
        values = {"b_app_id": app_id, "b_room_id": room_id, "default_app": self._default_app}
        with reading(self._engine) as connection:
            return list(connection.execute(_OF_ROOM, values).scalars())
