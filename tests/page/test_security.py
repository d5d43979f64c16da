"""Who may read the page: names, passwords, and what a browser may load."""

from base64 import b64encode

import pytest

from watchdog.page.security import has_token, headers, is_known_host

TOKEN = "geheim-é:1"


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("localhost", True),
        ("LocalHost.:8765", True),
        ("127.0.0.1:8765", True),
        ("10.1.2.3", True),
        ("[::1]:8765", True),
        ("watchdog.example.com:443", True),
        ("evil.example", False),
        ("watchdog.example.com.evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1@evil.example", False),
        ("[evil.example]", False),
        ("", False),
        (None, False),
    ],
)
def test_names_that_a_strangers_dns_could_give_are_refused(header: str | None, *, known: bool) -> None:
    assert is_known_host(header, {"localhost", "watchdog.example.com"}) is known


def basic(text: str) -> str:
    return "Basic " + b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "right"),
    [
        ("Bearer " + TOKEN.encode().decode("latin-1"), True),
        ("bearer  " + TOKEN.encode().decode("latin-1"), True),
        (basic(f"anybody:{TOKEN}"), True),
        (basic(f":{TOKEN}").replace("Basic", "basic"), True),
        (basic(TOKEN), False),
        (basic(f"{TOKEN}:"), False),
        (basic("anybody:"), False),
        ("Basic %%%", False),
        ("Basic é", False),
        ("Basic", False),
        ("Bearer", False),
        ("Digest " + TOKEN.encode().decode("latin-1"), False),
        ("", False),
    ],
)
def test_the_token_as_browsers_and_programs_send_it(authorization: str, *, right: bool) -> None:
    assert has_token(authorization, TOKEN) is right


def test_only_the_style_that_is_sent_is_applied() -> None:
    # By: printf 'p {}' | openssl dgst -sha256 -binary | base64
    assert headers("p {}")["Content-Security-Policy"].startswith(
        "default-src 'none'; style-src 'sha256-SNJDlN1Iy2mnt7DOjQIyDb2LQE6O5PQiSZomcdzawQ4='; "
    )
