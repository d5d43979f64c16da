import pytest

from watchdog.signing import sign

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
