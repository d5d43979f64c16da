import pytest

from watchdog.core.signing import callback_signature, sign

# The vendor's own published example.
APP_ID, NONCE, SECRET, TIMESTAMP = 12345, "4fd24687296dd9f3", "9193cc662a4c0ec135ec71fb57194b38", 1615186943


def test_the_vendors_published_vector() -> None:
    assert sign(APP_ID, NONCE, SECRET, TIMESTAMP) == "43e5cfcca828314675f91b001390566a"


@pytest.mark.parametrize(
    "other",
    [
        sign(APP_ID + 1, NONCE, SECRET, TIMESTAMP),
        sign(APP_ID, NONCE[::-1], SECRET, TIMESTAMP),
        sign(APP_ID, NONCE, SECRET[::-1], TIMESTAMP),
        sign(APP_ID, NONCE, SECRET, TIMESTAMP + 1),
    ],
)
def test_every_part_is_signed(other: str) -> None:
    assert other != sign(APP_ID, NONCE, SECRET, TIMESTAMP)


def test_the_vendors_published_vector_for_callbacks() -> None:
    assert callback_signature("secret", "1470820198", "123412") == "5bd59fd62953a8059fb7eaba95720f66d19e4517"


def test_the_three_texts_of_a_callback_are_sorted_before_they_are_signed() -> None:
    assert callback_signature("2", "3", "1") == callback_signature("1", "2", "3") == callback_signature("3", "1", "2")
