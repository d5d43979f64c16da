"""Pure rules: values in, decisions out, with ``now`` as an argument.

No I/O, no clock, no random numbers, no framework.
"""
