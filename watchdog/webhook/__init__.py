"""The wire to the application's own receiver: one signed POST for each event, to an address that may be reached.

What an answer means, and when an event is sent again, is decided in ``core.webhook``; what is sent, and when, in
``services.notifier``.
"""
