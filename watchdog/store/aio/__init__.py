"""The store for the event loop: worker threads, group commit, the answer spool, the database's time.

No SQL and no rules: every call here ends in a method of ``store``.
"""
