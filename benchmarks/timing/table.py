"""Markdown tables from rows, and the summary: one line a contestant over all parts."""

from typing import Any

Row = dict[str, Any]


def table(rows: list[Row], columns: dict[str, str]) -> str:
    """A Markdown table; `columns` maps headings to keys of the rows, absent values are "-"."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [_cell(row.get(key)) for key in columns.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(parts: dict[str, list[Row]]) -> str:
    """The one table: what each part found about a contestant, at the first step-time shape."""
    lines: dict[str, Row] = {}
    columns = {"contestant": "contestant"}

    def put(heading: str, rows: list[Row], key: str) -> None:
        for row in rows:
            line = lines.setdefault(row["contestant"], {"contestant": row["contestant"]})
            note = row["status"] if row["status"].startswith(("not", "failed")) else None
            line[heading] = row.get(key, note)
        columns[heading] = heading

    step = next((name for name in parts if name.startswith("step")), None)
    if step is not None:
        put("step ms", parts[step], "step_ms")
        put("peak MB", parts[step], "peak_mb")
        put("compile s", parts[step], "compile_s")
    for name, rows in parts.items():
        if name.startswith("nll "):
            put(f"s to target, {name[4:]}", [row for row in rows if "steps" in row], "to_target_s")
    if "sample" in parts:
        rows = [row for row in parts["sample"] if row["status"] != "ok"]
        put("samples/s, equal accuracy", rows, "sample_rate")
        put("scores/s, equal accuracy", rows, "score_rate")
    if "limit" in parts:
        put("share of limit", parts["limit"], "share")
    if "cold" in parts:
        for state, heading in (("none", "cold start s"), ("filled", "cold start s, cached")):
            put(heading, [r for r in parts["cold"] if r["cache"] == state], "cold_s")
    return table(list(lines.values()), columns)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
