"""zego-watchdog: stops abandoned ZEGO Cloud Realtime ASR tasks, and keeps the record in SQL."""

__version__ = "0.1.0"
