"""Declares commands, options and help texts.

A command imports what it needs when it runs, so ``--help`` is quick on a slow machine too. In a help text, backslash
and b keep the line breaks of a paragraph.
"""
