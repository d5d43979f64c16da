"""The package, installed and configured on a machine as an operator would do it."""

import shutil
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.running import APP_ID
from tests.system.machine import Machine, until
from tests.system.vendor import CALLBACK_SECRET, SERVER_SECRET, URL

UNIT: Final = "zego-watchdog.service"
DATABASE: Final = "/var/lib/private/zego-watchdog/zego-watchdog.db"
SOCKET_ADDRESS: Final = "127.0.0.1:8765"


def configuration(url: str = "sqlite:////var/lib/zego-watchdog/zego-watchdog.db", **sections: Any) -> str:
    """A configuration that stops tasks, and is quick about it; ``sections`` go over it, key by key."""
    config: dict[str, dict[str, Any]] = {
        "database": {"url": url},
        "zego": {
            "apps": [
                {
                    "app_id": APP_ID,
                    "server_secret_file": "${CREDENTIALS_DIRECTORY}/zego_server_secret",
                    "callback_secret_file": "${CREDENTIALS_DIRECTORY}/zego_callback_secret",
                }
            ],
            "asr_url": URL,
            "rtc_url": URL,
        },
        "policy": {
            "mode": "enforce",
            "max_idle_seconds": 120,
            "grace_seconds": 1,
            "never_joined_grace_seconds": 2,
            "confirm_seconds": 0.5,
        },
        "schedule": {"poll_seconds": 0.5, "occupancy_poll_seconds": 0},
        "stop": {"requests_per_second": 50, "occupancy_requests_per_second": 50, "lease_seconds": 12},
    }
    for name, keys in sections.items():
        config[name] = config.get(name, {}) | keys
    return yaml.safe_dump(config)


def install(machine: Machine, package: Path) -> str:
    """Install the package with dpkg, and return what that says."""
    shutil.copy(package, machine.path("/package.deb"))
    # What dpkg makes safe against a power cut is in memory here.
    return machine.run("dpkg", "--force-unsafe-io", "--install", "/package.deb").stdout


def configure(machine: Machine, text: str, *, instance: str = "") -> None:
    """Write configuration and secrets for the service, or for one of its instances."""
    config, secrets = (
        (f"/etc/zego-watchdog/{instance}.yaml", f"/etc/zego-watchdog/{instance}.secrets")
        if instance
        else ("/etc/zego-watchdog/config.yaml", "/etc/zego-watchdog/secrets")
    )
    machine.write(config, text)
    machine.path(secrets).mkdir(mode=0o700, exist_ok=True)
    machine.write(f"{secrets}/server_secret", SERVER_SECRET, 0o600)
    machine.write(f"{secrets}/callback_secret", CALLBACK_SECRET, 0o600)


def restarted(machine: Machine, unit: str, since: float, *, seconds: float = 60) -> float:
    """Wait until the unit is ready again after ``since`` (monotonic), and return how long after it that was.

    Ready is said after the first completed sweep.
    """
    reached = 0.0

    def is_ready() -> bool:
        nonlocal reached
        reached = int(machine.property(unit, "ActiveEnterTimestampMonotonic") or 0) / 1_000_000
        return reached > since and machine.property(unit, "ActiveState") == "active"

    until(f"{unit} is ready again", is_ready, seconds=seconds)
    return reached - since
