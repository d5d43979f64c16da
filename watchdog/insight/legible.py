"""Makes texts from outside harmless for a terminal and a page. Imports nothing, so that every error can use it."""


def legible(text: str) -> str:
    """``text`` without control characters: ids and messages come from outside and could move the cursor."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
