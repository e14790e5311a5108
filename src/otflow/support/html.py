"""Small static HTML tables, for notebooks and reports; every text in them is escaped."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

_STYLE = "border-collapse:collapse;text-align:left"


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
    classes: str = "",
) -> str:
    """A table as HTML.

    Args:
        caption: above it; may be empty.
        header: names of the columns; may be empty.
        rows: of texts, or of what `str` makes texts.
        classes: of the table, for style sheets; without them it brings a little style itself.
    """
    style = f' class="{escape(classes)}"' if classes else f' style="{_STYLE}"'
    parts = [f"<table{style}>"]
    if caption:
        parts.append(f"<caption>{escape(caption)}</caption>")
    if header:
        cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
        parts.append(f"<thead><tr>{cells}</tr></thead>")
    parts.append("<tbody>")
    parts += [_row(row, header) for row in rows]
    return "".join([*parts, "</tbody></table>"])


def _row(row: Sequence[Any], header: Sequence[str]) -> str:
    """A line; `data-of` tells a narrow screen the column's name. Without a header the first is."""
    cells = []
    for i, value in enumerate(row):
        text = escape(str(value))
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
