"""What commands and checks read: tasks, history, the situation, savings, health, privileges, exports.

The daemon does not use it; hardly anything here writes.
"""
