"""Errors of libraries, as they are shown to people."""

import ssl

import pytest

from watchdog.errors import in_words

REFUSED = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate (_ssl.c:1006)"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(-2, "Name or service not known"), "Name or service not known"),
        (OSError("[Errno 111] Connect call failed ('::1', 443)"), "Connect call failed ('::1', 443)"),
        (ssl.SSLCertVerificationError(1, REFUSED), "certificate verify failed: self-signed certificate"),
        (ValueError("of several lines:\n the second."), "of several lines:"),
        (ValueError("a sentence."), "a sentence"),
        (TimeoutError(), "TimeoutError"),
    ],
    ids=str,
)
def test_a_foreign_error_has_no_numbers_and_source_lines(error: Exception, words: str) -> None:
    assert in_words(error) == words
