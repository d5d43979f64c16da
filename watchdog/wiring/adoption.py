"""The adoption of tasks, for the daemon and for ``zego-watchdog adopt``."""

from collections.abc import Sequence

from watchdog.clock import Clock
from watchdog.config.settings import Config
from watchdog.services.adopter import LISTED_KINDS, Adopter, Registrar
from watchdog.wiring.from_config import app_ids
from watchdog.zego.client import ZegoClient


def adopter(
    config: Config,
    clock: Clock,
    zego: ZegoClient,
    registrar: Registrar,
    *,
    apps: Sequence[int] | None = None,
    kinds: Sequence[str] = LISTED_KINDS,
) -> Adopter:
    """Return what reads the lists of ``apps``, by default of all that are configured."""
    return Adopter(
        zego=zego,
        registrar=registrar,
        apps=app_ids(config) if apps is None else apps,
        clock=clock,
        kinds=kinds,
        every_seconds=config.schedule.adopt_seconds,
    )
