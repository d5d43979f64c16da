"""Runs the commands after their options are parsed. Text and tables are in ``view``; SQL is in ``watchdog.store``."""
