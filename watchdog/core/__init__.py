"""Pure rules: values in, decisions out, with ``now`` as an argument.

Nothing here does I/O, reads a clock, draws a random number or imports a framework.
"""
