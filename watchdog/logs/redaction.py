"""Removes secrets from text. No I/O; used by error messages and by every log line.

Secrets must not be logged at all. This is the last line of defence, for text from elsewhere: an exception of a library,
a URL in a vendor's reply.
"""

import json
import re
from typing import Final
from urllib.parse import quote

MASK: Final = "***"

_WRAPPING: Final = r"(?:[\"'\\\s]|\x1b\[[\d;]*m)*"
"""What may stand between a name and its value: quotes, blanks, a terminal's colours."""

# ``name=value`` anywhere, ``"name": value`` as in JSON and repr; prose such as "secret: use a file" stays.
_NAMED_VALUE: Final = re.compile(
    rf"(?P<name>(?:signature|password|secret)(?:{_WRAPPING}=|\\?[\"']\s*:){_WRAPPING})[^\s\"'\\&,;}}\x1b]+",
    re.IGNORECASE,
)
_URL_PASSWORD: Final = re.compile(r"(?P<name>://[^/\s:@\"']*:)[^/\s\"']+(?=@)")

_SHORTEST: Final = 6
_known: set[str] = set()


def redact(secret: str) -> None:
    """Mask ``secret`` in every text from now on, also as JSON, ``repr`` and URLs write it.

    A secret of fewer than six characters is not masked, because it would also match unrelated text.
    """
    if len(secret) >= _SHORTEST:
        spellings = {secret, repr(secret)[1:-1], quote(secret, safe="")}
        _known.update(spellings, *({json.dumps(s)[1:-1], json.dumps(s, ensure_ascii=False)[1:-1]} for s in spellings))


def scrub(text: str) -> str:
    """Return ``text`` without signatures, passwords (in URLs or by name) and the secrets passed to ``redact``."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _URL_PASSWORD.sub(rf"\g<name>{MASK}", text)
    return _NAMED_VALUE.sub(rf"\g<name>{MASK}", text)
