"""``adopt``: tasks that run at ZEGO and have no row; shown, or registered."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from watchdog.cli.commands.lookup import opened
from watchdog.cli.view import words
from watchdog.cli.view.adopt import adopted_row, print_adopted
from watchdog.cli.view.output import note, show_json
from watchdog.clock import Clock, SystemClock
from watchdog.config.settings import Config
from watchdog.core.model import RunningTask
from watchdog.errors import ConfigError
from watchdog.services.adopter import LISTED_KINDS, Adopted
from watchdog.store.discovery import AdoptionStore
from watchdog.store.engine import Engine
from watchdog.wiring.adoption import adopter
from watchdog.wiring.from_config import app_ids, zego_client
from watchdog.zego.client import ZegoClient


def adopt_tasks(
    path: Path | None,
    *,
    kind: str | None,
    app_id: int | None,
    apply: bool,
    as_json: bool,
    connect: Callable[[Config, Clock], ZegoClient] = zego_client,
) -> int:
    """Read the lists, register with ``apply``, and print; return the exit code. ``connect`` makes the client.

    Raises ConfigError, DatabaseError.
    """
    clock = SystemClock()
    with opened(path, with_secrets=True) as (config, database):
        apps = _apps(config, app_id)
        kinds = LISTED_KINDS if kind is None else (kind,)
        adopted = asyncio.run(_read(config, database, clock, connect, apps, kinds, apply=apply))
    now = clock.time()
    if as_json:
        show_json(adopted_row(adopted, applied=apply))
    else:
        print_adopted(adopted, now, applied=apply)
    for one in adopted.unlisted:
        note(f"zego-watchdog: {one.kind}: {one.error}")
    errors = [one.error for one in adopted.unlisted]
    # The configuration comes first: later will not help then.
    worst = next((error for error in errors if isinstance(error, ConfigError)), next(iter(errors), None))
    return 0 if worst is None else worst.exit_code


def _apps(config: Config, app_id: int | None) -> Sequence[int]:
    known = app_ids(config)
    if not known:
        raise ConfigError("zego.apps is empty, so ZEGO cannot be asked: add your app with its server_secret_file")
    if app_id is None:
        return known
    if app_id not in known:
        raise ConfigError(f"AppId {app_id} is not in zego.apps ({words.listed(known)}): add it there")
    return [app_id]


async def _read(
    config: Config,
    database: Engine,
    clock: Clock,
    connect: Callable[[Config, Clock], ZegoClient],
    apps: Sequence[int],
    kinds: Sequence[str],
    *,
    apply: bool,
) -> Adopted:
    store = AdoptionStore(database)
    choose = store.register if apply else store.unknown

    async def registrar(running: Sequence[RunningTask]) -> Sequence[RunningTask]:
        return await asyncio.to_thread(choose, running)

    client = connect(config, clock)
    try:
        return await adopter(config, clock, client, registrar, apps=apps, kinds=kinds).run_once()
    finally:
        await client.aclose()
