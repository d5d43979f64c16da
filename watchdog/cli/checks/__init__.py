"""What ``zego-watchdog check`` looks at, and what it concludes.

Each check returns findings; printing them is in ``cli.view``.
"""
