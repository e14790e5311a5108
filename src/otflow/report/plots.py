"""Panels as Plotly figures: plain dictionaries, colours as "@role" for the page to fill in.

The page holds them as JSON and its script draws them, so that they follow the reader's theme.
"""

import functools
import html
import math
from typing import Any

import numpy as np

from otflow.report.content import (
    Bars,
    Brackets,
    Cloud,
    Curve,
    Curves,
    Heat,
    Images,
    Moving,
    Panel,
    Role,
    Scatter,
)
from otflow.report.layout import LABEL, mosaic, shortened
from otflow.report.symbols import indices
from otflow.support.html import number

Figure = dict[str, Any]
SYMBOLS: dict[Role, str] = {
    "data": "circle",
    "model": "diamond",
    "target": "square",
    "other": "triangle-up",
    "exact": "circle-open",
}
_LINES = {"line": "solid", "both": "solid", "dashes": "dash"}


@functools.singledispatch
def figure(panel: Panel) -> Figure | None:
    """The panel as {"data", "layout"}, with "frames" where it moves; None for what is no plot."""
    return None


@figure.register
def _(panel: Curves) -> Figure:
    data = [_curve(curve, panel.log_y) for curve in panel.curves]
    layout = _layout(panel.x_name, panel.y_name)
    for axis, logarithmic in (("x", panel.log_x), ("y", panel.log_y)):
        if logarithmic:
            layout[f"{axis}axis"] |= {"type": "log", "exponentformat": "power"}
            values = np.concatenate([getattr(curve, axis) for curve in panel.curves])
            values = values[np.isfinite(values) & (values > 0)]
            if values.size and values.max() > 50 * values.min():
                layout[f"{axis}axis"]["dtick"] = 1  # powers of ten only
    return {"data": data, "layout": layout}


@figure.register
def _(panel: Scatter) -> Figure:
    data = [_cloud(cloud) for cloud in panel.clouds]
    layout = _layout(panel.x_name, panel.y_name)
    if panel.window is not None:
        for axis, ends in zip(("xaxis", "yaxis"), panel.window.T, strict=True):
            layout[axis]["range"] = _numbers(ends)
    return {"data": data, "layout": _square(layout) if panel.one_scale else layout}


@figure.register
def _(panel: Heat) -> Figure:
    heat = {
        "type": "heatmap",
        "x": _numbers(panel.x),
        "y": _numbers(panel.y),
        "z": _numbers(panel.values),
        "colorscale": "Viridis",
        "colorbar": {"thickness": 10, "outlinewidth": 0, "nticks": 5, "exponentformat": "power"},
        "hovertemplate": "%{x:.3g}, %{y:.3g}: %{z:.3g}<extra></extra>",
    }
    dots = _cloud(panel.cloud)
    line = {"color": "#000000", "width": 0.6}
    dots["marker"] = {"color": "#ffffff", "size": 3.5, "opacity": 0.8, "line": line}
    layout = _square(_layout(panel.x_name, panel.y_name))
    for axis, grid in (("xaxis", panel.x), ("yaxis", panel.y)):
        layout[axis]["range"] = _numbers(grid[[0, -1]])
    return {"data": [heat, dots], "layout": layout}


@figure.register
def _(panel: Moving) -> Figure:
    data = [_cloud(cloud) for cloud in panel.still]
    if panel.paths:
        gap = np.full((1, 2), np.nan)
        paths = np.concatenate([part for path in panel.paths for part in (path, gap)])
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": _numbers(paths[:, 0]),
                "y": _numbers(paths[:, 1]),
                "line": {"color": "@muted", "width": 0.8},
                "hoverinfo": "skip",
            }
        )
    data.append(_cloud(panel.moving))
    layout = _square(_layout(panel.x_name, panel.y_name))
    everything = [panel.frames.reshape(-1, 2), *(cloud.points for cloud in panel.still)]
    low, high = _span(np.concatenate(everything))
    layout["xaxis"]["range"], layout["yaxis"]["range"] = zip(low, high, strict=True)
    frames = {
        "trace": len(data) - 1,
        "x": [_numbers(frame[:, 0]) for frame in panel.frames],
        "y": [_numbers(frame[:, 1]) for frame in panel.frames],
        "labels": list(panel.labels),
    }
    return {"data": data, "layout": layout, "frames": frames}


@figure.register
def _(panel: Images) -> Figure:
    grid = mosaic(panel.images)
    heat = {
        "type": "heatmap",
        "z": _numbers(grid, digits=3),
        "colorscale": [[0, "@paper"], [1, "@ink"]],
        "zmin": 0,
        "zmax": 1,
        "showscale": False,
        "hoverinfo": "skip",
    }
    layout = _square(_layout("", ""))
    for axis in ("xaxis", "yaxis"):
        layout[axis] |= {"visible": False}
    layout["yaxis"]["autorange"] = "reversed"
    layout["margin"] = {"l": 4, "r": 4, "t": 4, "b": 4}
    return {"data": [heat], "layout": layout}


@figure.register
def _(panel: Brackets) -> Figure:
    data = []
    for interval in panel.intervals:
        row = _text(interval.name)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers+text",
                "x": _numbers([interval.low, interval.high]),
                "y": [row, row],
                "text": list(interval.ends),
                "textposition": ["bottom left", "bottom right"],
                "line": {"color": "@model", "width": 6},
                "marker": {"color": "@model", "symbol": "line-ns-open", "size": 20},
                "cliponaxis": False,
            }
        )
        if interval.truth is not None:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers+text",
                    "x": _numbers([interval.truth]),
                    "y": [row],
                    "text": [number(interval.truth)],
                    "textposition": "top center",
                    "marker": {"color": "@exact", "symbol": "x", "size": 11},
                    "cliponaxis": False,
                }
            )
    ends = [v for i in panel.intervals for v in (i.low, i.high, i.truth) if v is not None]
    room = 0.35 * (max(ends) - min(ends)) or 0.1 * abs(ends[0]) or 1.0
    layout = _layout(panel.x_name, "")
    layout["xaxis"]["range"] = _numbers([min(ends) - room, max(ends) + room])
    layout["yaxis"] |= {"type": "category", "range": [len(panel.intervals) - 0.4, -0.6]}
    layout["height"] = 110 + 80 * len(panel.intervals)
    return {"data": data, "layout": layout}


@figure.register
def _(panel: Bars) -> Figure:
    known = np.nan_to_num(panel.values)
    largest = int(known.argmax())
    data = {
        "type": "bar",
        "orientation": "h",
        "x": _numbers(known),
        "y": [_text(name) for name in panel.names],
        "text": [number(value) for value in panel.values],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": ["@model" if i == largest else "@data" for i in range(len(known))]},
    }
    layout = _layout(panel.x_name, "")
    layout["xaxis"]["range"] = [0, 1.3 * float(known.max()) or 1.0]
    layout["xaxis"]["nticks"] = 5
    layout["yaxis"]["autorange"] = "reversed"
    return {"data": [data], "layout": layout}


def _curve(curve: Curve, logarithmic: bool) -> Figure:
    if curve.mark == "bars":
        return {
            "type": "bar",
            "name": _text(curve.name),
            "x": _numbers(curve.x),
            "y": _numbers(curve.y),
            "marker": {"color": f"@{curve.role}"},
        }
    modes = {"points": "markers", "both": "lines+markers"}
    trace: Figure = {
        "type": "scatter",
        "name": _text(curve.name),
        "mode": modes.get(curve.mark, "lines"),
        "x": _numbers(curve.x),
        "y": _numbers(np.where(curve.y > 0, curve.y, np.nan) if logarithmic else curve.y),
        "marker": {"color": f"@{curve.role}", "symbol": SYMBOLS[curve.role], "size": 8},
        "line": {"color": f"@{curve.role}", "width": 2, "dash": _LINES.get(curve.mark, "solid")},
    }
    if curve.error is not None:
        above, below = np.nan_to_num(curve.error, posinf=0.0), curve.error
        below = np.minimum(above, 0.8 * curve.y) if logarithmic else above
        trace["error_y"] = {
            "type": "data",
            "array": _numbers(above),
            "arrayminus": _numbers(np.maximum(below, 0.0)),
            "color": f"@{curve.role}",
            "thickness": 1.2,
        }
    return trace


def _cloud(cloud: Cloud) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": _text(cloud.name),
        "x": _numbers(cloud.points[:, 0]),
        "y": _numbers(cloud.points[:, 1]),
        "marker": {
            "color": f"@{cloud.role}",
            "symbol": SYMBOLS[cloud.role],
            "size": 4 if cloud.role != "exact" else 6,
            "opacity": 0.6,
        },
        "hoverinfo": "skip",
    }


def _layout(x_name: str, y_name: str) -> Figure:
    axis = {
        "automargin": True,
        "gridcolor": "@grid",
        "linecolor": "@muted",
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": "@muted",
        "showline": True,
    }
    return {
        "xaxis": axis | {"title": {"text": _text(shortened(x_name, LABEL)), "standoff": 8}},
        "yaxis": axis | {"title": {"text": _text(shortened(y_name, LABEL)), "standoff": 8}},
        "font": {"color": "@ink", "size": 12, "family": "system-ui, sans-serif"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 52, "r": 14, "t": 10, "b": 44},
        "showlegend": False,
    }


def _square(layout: Figure) -> Figure:
    """One scale on both axes."""
    layout["xaxis"]["constrain"] = "domain"
    layout["yaxis"] |= {"scaleanchor": "x", "constrain": "domain"}
    return layout


def _span(points: np.ndarray) -> tuple[list[float], list[float]]:
    """Corners of the points' box with a little room."""
    low, high = points.min(axis=0), points.max(axis=0)
    room = 0.04 * np.maximum(high - low, 1e-9)
    return _numbers(low - room), _numbers(high + room)


def _text(name: str) -> str:
    """Plotly reads tags, entities, and mathematics between dollars; a name is none of them."""
    return indices(html.escape(name, quote=False).replace("$", "&#36;"))


def _numbers(values: Any, digits: int = 5) -> Any:
    """As JSON holds them: that many digits, None for what is not finite."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, list):
        return [_numbers(value, digits) for value in values]
    value = float(values)
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
