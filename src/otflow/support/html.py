"""Small static HTML tables, for notebooks and reports; every text in them is escaped."""

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

_STYLE = "border-collapse:collapse;text-align:left"
_MOST_PLACES = 6  # of numbers that are written without a power of ten


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
    classes: str = "",
    written: Callable[[str], str] = escape,
) -> str:
    """A table as HTML.

    Args:
        caption: above it; may be empty.
        header: names of the columns; may be empty.
        rows: of texts, or of what `str` makes texts.
        classes: of the table, for style sheets; without them it brings a little style itself.
        written: makes HTML of a text, and escapes it.
    """
    style = f' class="{escape(classes)}"' if classes else f' style="{_STYLE}"'
    parts = [f"<table{style}>"]
    if caption:
        parts.append(f"<caption>{escape(caption)}</caption>")
    if header:
        cells = "".join(f'<th scope="col">{written(name)}</th>' for name in header)
        parts.append(f"<thead><tr>{cells}</tr></thead>")
    parts.append("<tbody>")
    parts += [_row(row, header, written) for row in rows]
    return "".join([*parts, "</tbody></table>"])


def _row(row: Sequence[Any], header: Sequence[str], written: Callable[[str], str]) -> str:
    """A line; `data-of` tells a narrow screen the column's name. Without a header the first is."""
    cells = []
    for i, value in enumerate(row):
        text = written(str(value))
        if not header and i == 0:
            cells.append(f'<th scope="row">{text}</th>')
        else:
            of = f' data-of="{escape(header[i])}"' if header else ""
            cells.append(f"<td{of}>{text}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def number(value: float | None) -> str:
    """Four digits; "unknown" where there is no finite number."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return "unknown"
    return f"{value:.4g}"


def plus_minus(value: float, half: float, sign: str = "±") -> str:
    """A value and half of its interval, this with two digits and that as far as these go."""
    if not math.isfinite(value) or not math.isfinite(half) or half <= 0:
        return number(value)
    places = _places(half)
    if places > _MOST_PLACES and abs(value) >= 1e-3:
        return f"{value:.{places}f} {sign} {half:.1e}"
    if not 0 <= places <= _MOST_PLACES:
        digits = max(1, places + 1 + math.floor(math.log10(max(abs(value), half))))
        return f"{value:.{digits - 1}e} {sign} {half:.1e}"
    return f"{value:.{places}f} {sign} {half:.{places}f}"


def within(value: float, low: float, high: float) -> tuple[str, str, str]:
    """A value and the ends of its interval as far as that is known, the ends rounded outwards."""
    if not all(map(math.isfinite, (value, low, high))) or high <= low:
        return number(value), number(low), number(high)
    places = _places(high - low)
    if not 0 <= places <= _MOST_PLACES:
        return number(value), number(low), number(high)
    unit = 10.0**-places
    ends = math.floor(low / unit + 1e-6) * unit, math.ceil(high / unit - 1e-6) * unit
    first, second, third = ("0" if v == 0 else f"{v:.{places}f}" for v in (value, *ends))
    return first, second, third


def _places(width: float) -> int:
    """Places behind the point that give a width two digits."""
    return 1 - math.floor(math.log10(width))
