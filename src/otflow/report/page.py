"""A report as one HTML file that opens anywhere, offline: words, tables and Plotly's figures."""

import json
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from otflow.report.content import (
    Brackets,
    Document,
    Mark,
    Moving,
    Panel,
    Role,
    Section,
    Words,
    legend,
)
from otflow.report.plots import Figure, figure
from otflow.report.symbols import indices, plain
from otflow.support.extras import require
from otflow.support.files import atomic_path
from otflow.support.html import table

# the browser itself then refuses every request that a report could make
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{summary}</p>
{sections}
<footer>{footer}</footer>
</main>
<script type="application/json" id="figures">{figures}</script>
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
"""
_SHAPES: dict[Role, str] = {
    "data": '<circle cx="12" cy="6" r="4"/>',
    "model": '<path d="M12 1l5 5-5 5-5-5z"/>',
    "target": '<path d="M8 2h8v8h-8z"/>',
    "other": '<path d="M12 1l5 9h-10z"/>',
    "exact": '<circle cx="12" cy="6" r="4" fill="none" stroke="currentColor" stroke-width="2"/>',
}
_CROSS = '<path d="M8 2l8 8M16 2l-8 8" stroke="currentColor" stroke-width="3"/>'


def write_page(document: Document, path: str | Path) -> None:
    """Write the report, atomically: one file without references to any other.

    Raises:
        ImportError: Plotly is missing.
        OSError: the file cannot be written.
    """
    text = page(document)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page(document: Document) -> str:
    """The report as HTML.

    Raises:
        ImportError: Plotly is missing.
    """
    plotly = require("plotly.offline", "report").get_plotlyjs()
    drawn = {panel.key: figure(panel) for panel in document.panels}
    figures = {key: found for key, found in drawn.items() if found is not None}
    return _PAGE.format(
        policy=_POLICY,
        title=escape(document.title),
        summary=escape(document.summary),
        sections="\n".join(_section(s, drawn) for s in document.sections),
        footer=escape(document.footer),
        figures=_json(figures),
        plotly=plotly,
        style=_asset("page.css"),
        script=_asset("page.js"),
    )


def _asset(name: str) -> str:
    return (resources.files("otflow.report") / "assets" / name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """JSON that no text in it can end early: `<` only as an escape."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _set(text: str) -> str:
    """A text as HTML."""
    return indices(escape(text))


def _section(section: Section, drawn: dict[str, Figure | None]) -> str:
    inner = "\n".join(_panel(panel, drawn[panel.key] or {}) for panel in section.panels)
    title = f"<h2>{escape(section.title)}</h2>"
    told = f"<p>{_set(section.text)}</p>\n" if section.text else ""
    return f'<section>\n{title}\n{told}<div class="panels">{inner}</div></section>'


def _panel(panel: Panel, drawn: Figure) -> str:
    caption = f"<figcaption>{_set(panel.caption)}</figcaption>" if panel.caption else ""
    heading = f"<h3>{_set(panel.title)}</h3>" if panel.title else ""
    if isinstance(panel, Words):
        return f'<figure class="whole">{heading}{_words(panel)}{caption}</figure>'
    whole = ' class="whole"' if isinstance(panel, Brackets) else ""
    whole = ' class="large"' if isinstance(panel, Moving) else whole
    label = escape(plain(f"{panel.title}. {panel.caption}"))
    height = drawn["layout"].get("height")
    size = f' style="height:{height:d}px"' if height else ""
    plot = f'<div class="plot" id="plot-{panel.key}" role="img" aria-label="{label}"{size}></div>'
    return f"<figure{whole}>{heading}{_legend(panel)}{plot}{_slider(panel)}{caption}</figure>"


def _words(panel: Words) -> str:
    name = escape(plain(panel.title or panel.key))
    classes = "numbers" if panel.wide else "stack"
    inner = table("", panel.header, panel.rows, classes, _set)
    if not panel.wide:
        return inner
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">{inner}</div>'


def _slider(panel: Panel) -> str:
    if not isinstance(panel, Moving):
        return ""
    now, key = escape(panel.labels[panel.start]), panel.key
    name = escape(panel.slider)
    return (
        f'<div class="slider"><label for="slider-{key}">{name}</label>'
        f'<input type="range" id="slider-{key}" min="0" max="{len(panel.frames) - 1}" step="1" '
        f'value="{panel.start}" autocomplete="off" aria-valuetext="{now}">'
        f'<output id="label-{key}" for="slider-{key}">{now}</output></div>'
        f'<p class="print-only">Printed at: <span id="printed-{key}">{now}</span> (on screen a '
        "slider moves the points).</p>"
    )


def _legend(panel: Panel) -> str:
    found = legend(panel)
    if len(found) < 2:
        return ""
    cross = isinstance(panel, Brackets)
    items = [f"<li>{_swatch(role, mark, cross)}{_set(name)}</li>" for name, role, mark in found]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _swatch(role: Role, mark: Mark, cross: bool) -> str:
    parts = []
    if mark == "bars":
        parts.append('<path d="M4 2h6v10h-6zM14 5h6v7h-6z"/>')
    elif mark != "points":
        dash = ' stroke-dasharray="6 4"' if mark == "dashes" else ""
        parts.append(f'<path d="M0 6h24" stroke="currentColor" stroke-width="2"{dash}/>')
    if mark in ("points", "both"):
        parts.append(_CROSS if cross else _SHAPES[role])
    inner = "".join(parts)
    return (
        f'<svg viewBox="0 0 24 12" aria-hidden="true" fill="currentColor" '
        f'style="color:var(--{role})">{inner}</svg>'
    )
