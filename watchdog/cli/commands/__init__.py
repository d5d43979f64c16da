"""Runs the commands, after their options are parsed.

Text and tables are in ``cli.view``; SQL is in ``store``.
"""
