"""The files shipped with the program: migrations, the example configuration, systemd units."""

from pathlib import Path

from watchdog.errors import ConfigError


def shipped(name: str) -> Path:
    """Return a shipped file or folder: inside the installed package, or beside it in a checkout.

    Raises ConfigError if it is missing.
    """
    package = Path(__file__).parent
    for folder in (package, package.parent):
        if (folder / name).exists():
            return folder / name
    raise ConfigError(f"{name} is missing from {package}; install zego-watchdog again")
