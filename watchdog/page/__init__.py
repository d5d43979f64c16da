"""The read-only page for people: what ``status``, ``tasks``, ``explain`` and ``history`` tell, in a browser.

It reads with a connection of its own and keeps what it has read for some seconds. It has no script and changes nothing.
"""
