"""What ``zego-watchdog check`` tests; it changes nothing and stops nothing.

Each check returns findings; ``cli.view`` prints them.
"""
