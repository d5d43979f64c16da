"""How requests to ZEGO's server APIs are signed. Pure: the client signs with it, the sandbox checks with it."""

import hashlib


def sign(app_id: int, nonce: str, server_secret: str, timestamp: int) -> str:
    """Return the ``Signature`` parameter of one request (``SignatureVersion=2.0``).

    ``nonce`` is the 16 hex characters sent as ``SignatureNonce``; ``timestamp`` is Unix time in seconds, which the
    vendor accepts within ten minutes of its own clock. Source: ZEGO, "Server APIs: accessing server APIs".
    """
    text = f"{app_id}{nonce}{server_secret}{timestamp}"
    # MD5 is the vendor's choice; usedforsecurity=False keeps it available on FIPS hosts.
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
