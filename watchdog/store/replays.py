"""Which callbacks came before: the SQL of ``zego_callbacks_seen``.

ZEGO signs when a callback was sent, not its content: with one captured callback, another body can be sent under its
signature. Therefore each signature is stored twice, with and without the body, for as long as it can be valid. The same
body is a retry or a copy, and changes nothing. Another body is a forgery or a coincidence, because nonces are as short
as six digits. It then only counts as evidence that a person is there, which at worst keeps a task running. A genuine
event that is dropped this way is one more lost callback.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from watchdog.core import callbacks
from watchdog.store.many import given
from watchdog.store.tables import callbacks_seen, utcnow


@dataclass(frozen=True, slots=True)
class Use:
    """A signature with a body: a retry or a copy of a callback is the same use. ``until``: the signature may be valid.

    ``key`` and ``signature`` are the keys of the two rows.
    """

    key: str
    signature: str
    until: datetime


def use_of(event: callbacks.Event, body: bytes) -> Use:
    signature = callbacks.replay_key(event)
    until = datetime.fromtimestamp(callbacks.remembered_until(event), UTC)
    return Use(f"{signature}/{hashlib.sha256(body).hexdigest()}", signature, until)


def remember(connection: sa.Connection, uses: Sequence[Use | None]) -> Iterator[tuple[bool, bool]]:
    """Store the uses of signatures; yield for each whether it came before, and whether with another body."""
    keys = {key: use.until for use in reversed(uses) if use is not None for key in (use.key, use.signature)}
    dialect = connection.dialect.name
    rows = [{"replay_key": key, "seen_at": keys[key]} for key in sorted(keys)]
    unused = set(connection.execute(_INSERT[dialect], {"rows": rows}).scalars()) if rows else set()
    for use in uses:
        is_new_use = use is None or use.key in unused
        is_new_signature = use is None or use.signature in unused
        unused -= {use.key, use.signature} if use is not None else set()
        yield not is_new_use, is_new_use and not is_new_signature


_NAMES = ("replay_key", "seen_at")
_GIVEN = given(callbacks_seen, _NAMES)
_INSERT = {
    name: dialect.insert(callbacks_seen)
    .from_select(_NAMES, sa.select(_GIVEN.c.replay_key, later(utcnow(), _GIVEN.c.seen_at)).where(sa.true()))
    .on_conflict_do_nothing()
    .returning(callbacks_seen.c.replay_key)
    for name, dialect, later in (("sqlite", sqlite, sa.func.max), ("postgresql", postgresql, sa.func.greatest))
}
