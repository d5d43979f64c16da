"""The composition root: builds the parts from a configuration.

The only place where services, store and client are put together; no behaviour of its own.
"""
