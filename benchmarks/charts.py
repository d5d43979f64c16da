"""Two kinds of plot as SVG, drawn by hand: the same figures give the same bytes, and nothing need be installed."""

import math
from collections.abc import Sequence
from html import escape
from typing import Final

_WIDTH: Final = 860
_LEFT: Final = 230
_ROW: Final = 34
_COLOURS: Final = ("#0b5394", "#3d85c6", "#cc4125", "#e69138", "#6aa84f", "#674ea7", "#7f6000", "#45818e")


def bars(title: str, unit: str, values: Sequence[tuple[str, float]]) -> str:
    """One bar each, longest is full width."""
    most = max(value for _, value in values) or 1.0
    room = _WIDTH - _LEFT - 90
    parts = [_text(_WIDTH / 2, 24, title, anchor="middle", size=16)]
    for index, (name, value) in enumerate(values):
        top = 44 + index * _ROW
        width = room * value / most
        colour = _COLOURS[index % len(_COLOURS)]
        parts.append(_text(_LEFT - 10, top + 17, name, anchor="end"))
        parts.append(f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="24" fill="{colour}"/>')
        parts.append(_text(_LEFT + width + 6, top + 17, f"{value:,.0f} {unit}"))
    return _document(parts, 54 + len(values) * _ROW)


def distributions(title: str, axis: str, values: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Cumulative shares over a logarithmic axis of milliseconds; each of ``values`` is sorted, in seconds."""
    least, most = 0, max(1, math.ceil(math.log10(max(1e-3, *(1000 * each[-1] for _, each in values)))))
    room, height, top = _WIDTH - _LEFT - 40, 320, 50

    def across(seconds: float) -> float:
        exponent = math.log10(max(1000 * seconds, 10**least))
        return _LEFT + room * (exponent - least) / (most - least)

    parts = [_text(_WIDTH / 2, 24, title, anchor="middle", size=16)]
    for exponent in range(least, most + 1):
        x = across(10**exponent / 1000)
        parts.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + height}" stroke="#ddd"/>')
        parts.append(_text(x, top + height + 18, f"{10**exponent:,}", anchor="middle"))
    parts.append(_text(_LEFT + room / 2, top + height + 38, axis, anchor="middle"))
    for share in (0, 0.5, 0.99, 1):
        y = top + height * (1 - share)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + room}" y2="{y:.1f}" stroke="#ddd"/>')
    parts.append(_text(_LEFT + room + 4, top + height / 2 + 4, "50 %"))
    parts.append(_text(_LEFT + room + 4, top + 4, "100 %"))
    for index, (name, late) in enumerate(values):
        colour = _COLOURS[index % len(_COLOURS)]
        points = " ".join(
            f"{across(late[min(len(late) - 1, step * len(late) // 200)]):.1f},{top + height * (1 - step / 200):.1f}"
            for step in range(201)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<rect x="10" y="{top + index * 26}" width="14" height="14" fill="{colour}"/>')
        parts.append(_text(30, top + 12 + index * 26, name))
    return _document(parts, top + height + 54)


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _document(parts: Sequence[str], height: float) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}"'
        ' font-family="sans-serif" fill="#222">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>", ""])
