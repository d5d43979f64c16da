"""Reload: what a new configuration changes while the daemon runs, and what needs a restart.

Secrets are read with the configuration: a new secret in the same file is a change of ``zego.apps``.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from watchdog import logs
from watchdog.config.section import Section
from watchdog.config.settings import Config
from watchdog.daemon.liveness import ServiceStatus
from watchdog.daemon.metrics import Metrics
from watchdog.errors import ConfigError
from watchdog.wiring.parts import Parts

log = structlog.get_logger(__name__)

APPLIED: Final = frozenset(
    {
        *("policy.*", "guard.*", "zego.bot_user_ids", "zego.discover", "schedule.poll_seconds"),
        *("stop.requests_per_second", "stop.occupancy_requests_per_second", "stop.shutdown_seconds"),
        *("http.token", "http.token_file", "log.level"),
        *("notify.url", "notify.secret", "notify.secret_file", "notify.events", "notify.request_timeout_seconds"),
        *("notify.concurrency", "notify.allowed_networks"),
    }
)
"""The keys that take effect at once; of ``zego.apps`` the secrets do. After a restart: everything else."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The current configuration from now on, the keys that changed, and those that need a restart."""

    config: Config
    applied: tuple[str, ...]
    need_restart: tuple[str, ...]


def merge(old: Config, new: Config) -> Merged:
    """Take from ``new`` what can be applied, and the rest from ``old``.

    Raises ConfigError if the two parts contradict each other: then only a restart or a correction helps.
    """
    applied: list[str] = []
    need_restart: list[str] = []
    sections: dict[str, Section] = {}
    for name in Config.model_fields:
        before, after = getattr(old, name), getattr(new, name)
        taken: dict[str, Any] = {}
        for key in (key for key in type(before).model_fields if getattr(before, key) != getattr(after, key)):
            if not APPLIED.isdisjoint({f"{name}.{key}", f"{name}.*"}):
                taken[key] = getattr(after, key)
                applied.append(f"{name}.{key}")
            elif (name, key) == ("zego", "apps"):
                newest = {app.app_id: app for app in after.apps}
                # The apps that are served, each with its newest secrets.
                taken[key] = tuple(newest.get(app.app_id, app) for app in before.apps)
                if taken[key] != before.apps:
                    applied.append("zego.apps (secrets)")
                if [app.app_id for app in before.apps] != list(newest):
                    need_restart.append("zego.apps")
            else:
                need_restart.append(f"{name}.{key}")
        sections[name] = before.model_copy(update=taken)
    try:
        # Each section is valid by itself; the rules between sections are checked again.
        config = Config.model_validate(sections)
    except ValueError as error:
        raise ConfigError(
            f"the new values of {', '.join(applied)} do not go with the present ones of {', '.join(need_restart)}, "
            "which only a restart can change: restart"
        ) from error
    return Merged(config, tuple(applied), tuple(need_restart))


@dataclass(kw_only=True, eq=False, repr=False)
class Reloader:
    """Applies new configurations to the parts of a running daemon. A configuration that is refused changes nothing."""

    parts: Parts
    metrics: Metrics
    status: ServiceStatus
    on_applied: Callable[[], None]
    problem: str | None = field(init=False, default=None)
    """Why the last configuration was refused; None if it was applied."""

    async def reload(self, load: Callable[[], Config]) -> None:
        """Read a configuration with ``load`` and apply what can be applied. Raises nothing."""
        self.status.reloading()
        try:
            merged = merge(self.parts.config, await asyncio.to_thread(load))
        except ConfigError as error:
            self._refuse(str(error))
        except Exception as error:
            # An unexpected error in a file must not end a daemon that works.
            log.exception("reload_failed")
            self._refuse(f"{type(error).__name__}: {error}")
        else:
            self._apply(merged)
        finally:
            self.status.reloaded()

    def _apply(self, merged: Merged) -> None:
        self.parts.adopt(merged.config)
        logs.set_level(merged.config.log.level)
        self.problem = None
        self.metrics.reloaded(successful=True)
        log.info("reloaded", changed=list(merged.applied), mode=merged.config.policy.mode.value)
        if merged.need_restart:
            log.warning("needs_a_restart", keys=list(merged.need_restart), next_step="the old values stay until then")
        for warning in merged.config.warnings:
            log.warning("configuration", warning=warning)
        self.on_applied()

    def _refuse(self, problem: str) -> None:
        self.problem = problem
        self.metrics.reloaded(successful=False)
        log.error("reload_refused", error=problem, next_step="correct it; until then the old configuration stays")
