"""What must never be read by anybody, taken out of text. No I/O: used by error messages and by every log line.

Nothing here is a licence to log a secret. It is the last line of defence, for texts that others compose: an exception
of a library, a URL in a vendor's reply.
"""

import json
import re
from typing import Final
from urllib.parse import quote

MASK: Final = "***"

_WRAPPING: Final = r"(?:[\"'\\\s]|\x1b\[[\d;]*m)*"
"""What else stands between a name and its value: quotes, blanks, a terminal's colours."""

# ``name=value`` anywhere, ``"name": value`` as JSON and repr write it; prose such as "secret: use a file" stays.
_NAMED_VALUE: Final = re.compile(
    rf"(?P<name>(?:signature|password|secret)(?:{_WRAPPING}=|\\?[\"']\s*:){_WRAPPING})[^\s\"'\\&,;}}\x1b]+",
    re.IGNORECASE,
)
_URL_PASSWORD: Final = re.compile(r"(?P<name>://[^/\s:@\"']*:)[^/\s\"']+(?=@)")

_SHORTEST: Final = 6
_known: set[str] = set()


def redact(secret: str) -> None:
    """Have ``secret`` masked in every text from now on, also as JSON, ``repr`` and URLs spell it.

    Anything shorter than six characters is left alone: masking it would only garble what is unrelated.
    """
    if len(secret) >= _SHORTEST:
        spellings = {secret, repr(secret)[1:-1], quote(secret, safe="")}
        _known.update(spellings, *({json.dumps(s)[1:-1], json.dumps(s, ensure_ascii=False)[1:-1]} for s in spellings))


def scrub(text: str) -> str:
    """``text`` without signatures, passwords (in URLs or by name), and the secrets that ``redact`` was told of."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _URL_PASSWORD.sub(rf"\g<name>{MASK}", text)
    return _NAMED_VALUE.sub(rf"\g<name>{MASK}", text)
