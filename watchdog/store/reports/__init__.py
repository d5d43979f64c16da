"""What commands and checks read: tasks, history, the situation, health, privileges, exports.

Nothing here is used by the daemon's own work, and hardly anything writes.
"""
