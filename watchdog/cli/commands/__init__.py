"""What each command does, after its options are parsed.

Text and tables are in ``cli.view``; SQL is in ``store``.
"""
