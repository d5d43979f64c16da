"""Prints tables, text and JSON. Nothing here reads a database or a file."""
