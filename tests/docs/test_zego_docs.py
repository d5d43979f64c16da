"""docs/zego.md: its table of return codes is the program's."""

import re
from collections.abc import Iterator
from pathlib import Path

from watchdog.core.outcomes import RETURN_CODES

PAGE = (Path(__file__).parents[2] / "docs/zego.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| ([\d–,; ]+)(?:, HTTP \d+)? \| [^|]+ \| (\w+)", re.MULTILINE)


def codes(cell: str) -> Iterator[str]:
    """The codes of a cell; one may have only the last digits, the rest is as before. Ranges include both ends."""
    before = ""
    for part in re.split(r"[,;] *", cell.strip()):
        first, _, last = part.partition("–")
        first = before[: -len(first)] + first if len(before) > len(first) else first
        before = first
        last = first[: -len(last)] + last if last else first
        yield from (str(code) for code in range(int(first), int(last) + 1))


def test_the_table_has_every_return_code() -> None:
    listed = {code: treated for cell, treated in ROW.findall(PAGE) for code in codes(cell)}
    assert listed == {code: reply_class.value for code, reply_class in RETURN_CODES["asr"].items()}
