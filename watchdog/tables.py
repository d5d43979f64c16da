"""Where packages built before 0.2 look for the schema's version when somebody goes back to them; gone in 0.3."""

from watchdog import SCHEMA_VERSION

__all__ = ["SCHEMA_VERSION"]
