"""Settings: read once, validated, frozen; messages name the key.

Nothing here decides about tasks, and nothing below imports it: ``wiring`` hands values on.
"""

from watchdog.config.loader import find, load
from watchdog.config.settings import Config

__all__ = ["Config", "find", "load"]
