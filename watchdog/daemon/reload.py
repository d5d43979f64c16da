"""What a new configuration changes while the daemon runs, and what it changes only with a restart.

    applied       policy, guard, bot_user_ids, discover, paces, poll_seconds, log level, the apps' secrets, the token
    after restart everything else; until then the old values stay

Secrets are read with the configuration: a file that holds another secret than before is a change of ``zego.apps``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from watchdog.config.settings import AppConfig, Config, Section
from watchdog.errors import ConfigError

APPLIED: Final = frozenset(
    {
        ("policy", "*"),
        ("guard", "*"),
        ("zego", "bot_user_ids"),
        ("zego", "discover"),
        ("schedule", "poll_seconds"),
        ("stop", "requests_per_second"),
        ("stop", "occupancy_requests_per_second"),
        ("stop", "shutdown_seconds"),
        ("http", "token"),
        ("http", "token_file"),
        ("log", "level"),
    }
)
"""The keys that take effect at once; ``zego.apps`` does as far as secrets go."""


@dataclass(slots=True)
class Reloads:
    """How reloads went since the start; ``refused`` with the reason of the last one while that is what counts."""

    ok: int = 0
    refused: int = 0
    problem: str | None = None

    def succeeded(self) -> None:
        self.ok += 1
        self.problem = None

    def failed(self, problem: str) -> None:
        self.refused += 1
        self.problem = problem

    @property
    def last_successful(self) -> bool:
        return self.problem is None


@dataclass(frozen=True, slots=True)
class Merged:
    """The configuration in force from now on, the keys that changed with it, and those that wait for a restart."""

    config: Config
    applied: tuple[str, ...]
    need_restart: tuple[str, ...]


def merge(old: Config, new: Config) -> Merged:
    """Take over from ``new`` what can be taken over; the rest stays ``old``.

    Raises ConfigError when the two parts do not go together: then a restart is the only way, or a correction.
    """
    applied: list[str] = []
    need_restart: list[str] = []
    sections: dict[str, Section] = {}
    for name in Config.model_fields:
        before, after = getattr(old, name), getattr(new, name)
        taken: dict[str, Any] = {}
        for key in _changed(before, after):
            if (name, key) in APPLIED or (name, "*") in APPLIED:
                taken[key] = getattr(after, key)
                applied.append(f"{name}.{key}")
            elif (name, key) == ("zego", "apps"):
                taken[key] = tuple(_apps(before.apps, after.apps))
                if taken[key] != before.apps:
                    applied.append("zego.apps (secrets)")
                if _ids(before.apps) != _ids(after.apps):
                    need_restart.append("zego.apps")
            else:
                need_restart.append(f"{name}.{key}")
        sections[name] = before.model_copy(update=taken)
    try:
        # The sections' own rules held in both; those between sections are looked at again.
        config = Config.model_validate(sections)
    except ValueError as error:
        raise ConfigError(
            f"the new values of {', '.join(applied)} do not go with the present ones of {', '.join(need_restart)}, "
            "which only a restart can change: restart"
        ) from error
    return Merged(config, tuple(applied), tuple(need_restart))


def _changed(before: Section, after: Section) -> Iterator[str]:
    for key in type(before).model_fields:
        if getattr(before, key) != getattr(after, key):
            yield key


def _ids(apps: tuple[AppConfig, ...]) -> list[int]:
    return [app.app_id for app in apps]


def _apps(before: tuple[AppConfig, ...], after: tuple[AppConfig, ...]) -> Iterator[AppConfig]:
    """The apps that are served, each with its newest secrets."""
    newest = {app.app_id: app for app in after}
    for app in before:
        yield newest.get(app.app_id, app)
