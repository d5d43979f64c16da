"""What one types: commands, options, help texts.

Each command imports what it needs when it runs, so that ``--help`` is quick.
"""
