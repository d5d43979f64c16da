"""Plots as SVG to stand in the page: without script, style, ids and colours, which are the page's own (``style.css``).

The library is an extra, because only reports need it.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from watchdog.errors import ConfigError

WIDTH: Final = 960
_FONT: Final = {"label_font_size": 12, "major_label_font_size": 12, "legend_font_size": 13, "title_font_size": 13}
_LETTER_WIDTH: Final = 8
_VISIBLE: Final = 0.05
_SUPERFLUOUS: Final = {"defs", "desc", "title"}
"""The library puts script and style into the definitions."""
_LONG_FRACTION: Final = re.compile(r"(\d+\.\d)\d+")


def bars(
    title: str, axes: tuple[str, str], labels: Sequence[str], series: Mapping[str, Sequence[int | float]], **more: Any
) -> str:
    """Draw a bar for each label; several series stand on each other. Raises ConfigError."""
    chart = _chart("StackedBar", axes, series=len(series), truncate_label=-1, **more)
    chart.x_labels = labels
    if "x_label_rotation" not in more:
        room = WIDTH // (max(map(len, labels), default=1) * _LETTER_WIDTH)
        chart.x_labels_major = labels[:: -(-len(labels) // room)]
        chart.show_minor_x_labels = False
    if all(isinstance(value, int) for values in series.values() for value in values):
        chart.order_min = 0  # no fractions beside the axis
    for name, values in series.items():
        chart.add(name, [value or None for value in values])
    return _svg(chart, title, "bars")


def lying_bars(title: str, axis: str, values: Sequence[tuple[str, int]]) -> str:
    """Draw a bar for each name, the first at the top. Raises ConfigError."""
    height = 60 + 26 * len(values)
    chart = _chart("HorizontalBar", (axis, ""), height=height, order_min=0, truncate_label=-1)
    chart.x_labels = [name for name, _ in reversed(values)]
    chart.add("", [value for _, value in reversed(values)])
    return _svg(chart, title, "lying")


def lines(title: str, axes: tuple[str, str], series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Draw lines through points; the second and the third are the limits of the first. Raises ConfigError."""
    chart = _chart(
        "XY", axes, series=len(series), show_dots=False, value_formatter=_percent, x_value_formatter=lambda x: f"{x:g}"
    )
    for name, points in series.items():
        chart.add(name, list(points))
    return _svg(chart, title, "lines")


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def require() -> Any:
    """Return the library. Raises ConfigError if it is not installed."""
    try:
        import pygal.style  # noqa: PLC0415  # an extra: only this needs it
    except ImportError as error:
        raise ConfigError(
            "the library that draws the plots of a report is not installed; "
            "install it with: pip install 'zego-watchdog[report]'"
        ) from error
    # It leaves a finder for old plugins, of a kind that Python warns of at every later import.
    sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("pygal")]
    return pygal


def _chart(kind: str, axes: tuple[str, str], *, series: int = 1, **options: Any) -> Any:
    library = require()
    settings: dict[str, Any] = {
        "width": WIDTH,
        "height": 320,
        "margin": 8,
        "margin_bottom": 14,
        "style": library.style.Style(**_FONT),
        "css": (),
        "js": (),
        "no_prefix": True,
        "disable_xml_declaration": True,
        "legend_at_bottom": True,
        # With more columns than series, the library has no room left for them.
        "legend_at_bottom_columns": series,
        "show_legend": series > 1,
        "max_scale": 6,
        "legend_box_size": 11,
        "truncate_legend": -1,
        "value_formatter": _number,
        "x_title": axes[0],
        "y_title": axes[1],
    }
    return getattr(library, kind)(**(settings | options))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def _svg(chart: Any, title: str, name: str) -> str:
    chart.add_xml_filter(_filter(title, name))
    drawn: str = chart.render(is_unicode=True)
    return drawn


def _filter(title: str, name: str) -> Callable[[Any], Any]:
    def keep_the_drawing(root: Any) -> Any:
        for parent in list(root.iter()):
            if not isinstance(parent.tag, str):
                continue
            for child in list(parent):
                if not isinstance(child.tag, str) or _is_superfluous(child):
                    parent.remove(child)
            # Ids would occur in several plots of one page; a style would need another permission from the browser.
            for attribute in ("id", "style", "xmlns"):
                parent.attrib.pop(attribute, None)
            for attribute, value in parent.attrib.items():
                if attribute != "class":
                    parent.set(attribute, _LONG_FRACTION.sub(r"\1", value))
        for attribute, value in {"class": f"plot-{name}", "role": "img", "aria-label": title}.items():
            root.set(attribute, value)
        return root

    return keep_the_drawing


def _is_superfluous(element: Any) -> bool:
    tag, classes = element.tag.rpartition("}")[2], element.get("class", "").split()
    if tag == "g" and "bar" in classes:
        # A stacked bar of nothing is a rectangle without a height.
        return all(float(each.get("height")) < _VISIBLE for each in element if "height" in each.attrib)
    return tag in _SUPERFLUOUS or "tooltip-overlay" in classes
