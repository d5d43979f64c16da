"""zego-watchdog: stops abandoned ZEGO tasks, and keeps the record in SQL."""

__version__ = "0.1.0"

SCHEMA_VERSION = "0008"
"""The Alembic revision this program is written for; Debian's scripts read it here."""
