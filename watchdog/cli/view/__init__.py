"""Prints: tables, words and colours on a terminal, and JSON.

Nothing here reads a database or a file.
"""
