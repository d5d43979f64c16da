"""The signatures of requests to ZEGO and of its callbacks. Pure; used by the daemon and by the sandbox."""

import hashlib


def sign(app_id: int, nonce: str, server_secret: str, timestamp: int) -> str:
    """Return the ``Signature`` parameter of one request (``SignatureVersion=2.0``).

    ``nonce`` is the 16 hex characters sent as ``SignatureNonce``. ``timestamp`` is Unix time in seconds; the vendor
    accepts it within ten minutes of its own clock. Source: ZEGO, "Server APIs: accessing server APIs".
    """
    text = f"{app_id}{nonce}{server_secret}{timestamp}"
    # MD5 is the vendor's choice; usedforsecurity=False keeps it available on FIPS hosts.
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def callback_signature(secret: str, timestamp: str, nonce: str) -> str:
    """Return the signature of a callback: lower-case hex SHA-1 of the three texts, sorted and joined.

    ``secret`` is the AppId's ``callbacksecret``; ``timestamp`` and ``nonce`` are the characters of the callback. It
    does not cover the body. Source: ZEGO, "Receiving callbacks: verify the signature".
    """
    # SHA-1 is the vendor's choice too.
    return hashlib.sha1("".join(sorted((secret, timestamp, nonce))).encode(), usedforsecurity=False).hexdigest()
