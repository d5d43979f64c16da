"""All SQL, for SQLite and PostgreSQL: one module for each table or subject, synchronous, one short transaction a call.

Rules are in ``core``; what runs on the event loop is in ``store.aio``; what commands read is in ``store.reports``.
"""
