"""``python -m benchmarks.peers NAME ARGUMENT…``: one of the programs here, each by its ``main``."""

import importlib
import sys

if __name__ == "__main__":
    # By import, not run as it is: what they schedule is found by the name of its module.
    importlib.import_module(f"benchmarks.peers.{sys.argv[1]}").main(*sys.argv[2:])
