"""The configuration: read once, validated, frozen; error messages name the key.

Nothing here decides about tasks. Only the outer layers import it; ``wiring`` passes the values on.
"""

from watchdog.config.loader import find, load
from watchdog.config.settings import Config

__all__ = ["Config", "find", "load"]
