"""All SQL, for SQLite and PostgreSQL: one module for each table or subject, synchronous, one short transaction a call.

A call may be made from any thread. It raises DatabaseUnavailable if a later call may succeed, DatabaseError otherwise.
Rules are in ``core``; what runs on the event loop is in ``store.aio``; what commands read is in ``store.reports``.
"""
