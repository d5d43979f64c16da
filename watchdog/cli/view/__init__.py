"""What one sees: tables, words and colours on a terminal.

Nothing here reads a database or a file.
"""
