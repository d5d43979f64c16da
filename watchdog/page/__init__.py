"""The read-only page for people: what ``status``, ``tasks``, ``explain`` and ``history`` tell, in a browser.

``site`` checks host, token and method, and turns the address into a value (``views``). Equal values share one reading:
``cache`` keeps it for some seconds and makes it once, however many ask. ``store.aio.reader`` reads in a thread with a
connection of its own, limited in time. ``drawing`` chooses what a template gets; ``rendering`` renders it in another
thread. There is no script, and nothing is changed.
"""
