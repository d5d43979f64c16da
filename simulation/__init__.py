"""Hours of a thousand rooms against the real decision, store and callback code: ``python -m simulation``."""
