"""Tables as plain text, for terminals and `print`."""

import io
from collections.abc import Iterable, Sequence
from typing import Any

_WIDTH = 100


def text_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[Any]], width: int = _WIDTH
) -> str:
    """A table that is `width` characters wide at most; long cells are folded.

    Args:
        title: above it; may be empty.
        header: names of the columns; may be empty.
        rows: of texts, or of what `str` makes texts.
        width: of a line.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, box=box.SIMPLE, show_header=bool(header), pad_edge=False)
    found = [[str(cell) for cell in row] for row in rows]
    for name in header or [""] * max(map(len, found), default=1):
        table.add_column(name, overflow="fold")
    for row in found:
        table.add_row(*map(Text, row))
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")
