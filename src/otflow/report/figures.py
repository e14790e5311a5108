"""Panels as Matplotlib figures: the static twins of `plots`, for papers."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from otflow.report.content import (
    Bars,
    Brackets,
    Cloud,
    Curves,
    Document,
    Heat,
    Images,
    Moving,
    Panel,
    Role,
    Scatter,
    Words,
)
from otflow.report.layout import LABEL, LEGEND, TITLE, mosaic, shortened
from otflow.report.symbols import plain
from otflow.support.extras import require
from otflow.support.files import atomic_path
from otflow.support.html import number

COLOURS: dict[Role, str] = {  # Okabe and Ito's, and ink
    "data": "#0072b2",
    "model": "#d55e00",
    "target": "#009e73",
    "other": "#cc79a7",
    "exact": "#1b1b1b",
}
SUFFIXES = (".pdf", ".svg", ".png")
_MARKERS: dict[Role, str] = {"data": "o", "model": "D", "target": "s", "other": "^", "exact": "x"}
_FRAMES = 4  # of a panel that moves


def save_figures(document: Document, folder: str | Path, suffix: str = ".pdf") -> list[Path]:
    """A file for every panel that is a picture, named by its key.

    Args:
        document: a report.
        folder: made where it is missing.
        suffix: .pdf or .svg (vector), or .png.

    Returns:
        The files written.

    Raises:
        ValueError: another suffix.
        ImportError: Matplotlib is missing.
    """
    if suffix not in SUFFIXES:
        raise ValueError(f"suffix: expected one of {', '.join(SUFFIXES)}; got {suffix!r}.")
    Path(folder).mkdir(parents=True, exist_ok=True)
    found = []
    for panel in document.panels:
        if not isinstance(panel, Words):
            found.append(Path(folder) / f"{panel.key}{suffix}")
            save_panels([panel], found[-1])
    return found


def save_panels(panels: Iterable[Panel], path: str | Path) -> None:
    """One file with panels side by side, two or three a line; its suffix is the format.

    Raises:
        ValueError: no panels.
        ImportError: Matplotlib is missing.
    """
    drawn = list(panels)
    if not drawn:
        raise ValueError("panels: expected at least one; got none.")
    columns = min(len(drawn), 2 if len(drawn) % 2 == 0 else 3)
    lines = -(-len(drawn) // columns)
    width, height = (10.0, 3.4) if any(isinstance(p, Moving) for p in drawn) else (5.2, 3.9)
    size = (width * columns, height * lines)
    figure = require("matplotlib.figure", "plot").Figure(figsize=size, layout="constrained")
    boxes = np.atleast_1d(np.asarray(figure.subfigures(lines, columns), object)).ravel()
    for box, panel in zip(boxes, drawn, strict=False):
        box.suptitle(_plain(panel.title, TITLE), fontsize=10)
        draw(panel, box)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format=Path(path).suffix[1:])


@functools.singledispatch
def draw(panel: Panel, figure: Any) -> None:
    """Draw a panel into a Matplotlib figure or subfigure.

    Raises:
        TypeError: a panel that is no picture.
    """
    raise TypeError(f"panel: expected one that is a picture; got {type(panel).__name__}.")


@draw.register
def _(panel: Curves, figure: Any) -> None:
    axis = figure.subplots()
    bars_drawn, beside = 0, max(1, sum(curve.mark == "bars" for curve in panel.curves))
    for curve in panel.curves:
        colour = COLOURS[curve.role]
        if curve.mark == "bars":
            width = 0.8 * (curve.x[1] - curve.x[0] if len(curve.x) > 1 else 1.0) / beside
            at = curve.x + (bars_drawn - (beside - 1) / 2) * width
            axis.bar(at, curve.y, width, color=colour, label=_plain(curve.name, LEGEND))
            bars_drawn += 1
            continue
        y = np.where(curve.y > 0, curve.y, np.nan) if panel.log_y else curve.y
        shown = np.isfinite(y)
        x, y = curve.x[shown], y[shown]
        marker = _MARKERS[curve.role] if curve.mark in ("points", "both") else "None"
        style = {"points": "None", "dashes": "--"}.get(curve.mark, "-")
        bars = None
        if curve.error is not None:
            above = np.nan_to_num(curve.error[shown], posinf=0.0)
            bars = np.stack([np.minimum(above, 0.8 * y) if panel.log_y else above, above])
        axis.errorbar(
            x,
            y,
            bars,
            color=colour,
            marker=marker,
            linestyle=style,
            markersize=5,
            linewidth=1.4,
            capsize=3,
            label=_plain(curve.name, LEGEND),
        )
    for one, logarithmic in ((axis.xaxis, panel.log_x), (axis.yaxis, panel.log_y)):
        if logarithmic:
            _logarithmic(one)
    axis.grid(alpha=0.2)
    _finish(figure, axis, panel.x_name, panel.y_name)


@draw.register
def _(panel: Scatter, figure: Any) -> None:
    axis = figure.subplots()
    for cloud in panel.clouds:
        _cloud(axis, cloud)
    if panel.window is not None:
        axis.set(xlim=panel.window[:, 0], ylim=panel.window[:, 1])
    if panel.one_scale:
        axis.set_aspect("equal", adjustable="datalim" if panel.window is None else "box")
    _finish(figure, axis, panel.x_name, panel.y_name)


@draw.register
def _(panel: Heat, figure: Any) -> None:
    axis = figure.subplots()
    mesh = axis.pcolormesh(panel.x, panel.y, panel.values, rasterized=True)
    axis.plot(*panel.cloud.points.T, ".", color="white", mec="black", mew=0.2, ms=3, alpha=0.8)
    axis.set_aspect("equal")
    figure.colorbar(mesh, ax=axis, label=_plain(panel.value_name))
    _finish(figure, axis, panel.x_name, panel.y_name)


@draw.register
def _(panel: Moving, figure: Any) -> None:
    """A few frames beside one another, the first and the last among them."""
    chosen = np.unique(np.linspace(0, len(panel.frames) - 1, _FRAMES).round().astype(int))
    axes = figure.subplots(1, len(chosen), sharex=True, sharey=True, squeeze=False)[0]
    for axis, i in zip(axes, chosen, strict=True):
        for cloud in panel.still:
            _cloud(axis, cloud)
        for path in panel.paths:
            axis.plot(*path.T, color="0.6", linewidth=0.5)
        _cloud(axis, Cloud(panel.moving.name, panel.frames[i], panel.moving.role))
        axis.set_title(_plain(panel.labels[i]), fontsize=9)
        axis.set_aspect("equal")
        axis.set_xlabel(_plain(panel.x_name))
    axes[0].set_ylabel(_plain(panel.y_name))
    _legend(figure, axes[0])


@draw.register
def _(panel: Images, figure: Any) -> None:
    axis = figure.subplots()
    axis.imshow(mosaic(panel.images), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axis.set_axis_off()


@draw.register
def _(panel: Brackets, figure: Any) -> None:
    axis = figure.subplots()
    for row, interval in enumerate(panel.intervals):
        label = "bracket" if row == 0 else None
        ends = [interval.low, interval.high]
        axis.plot(ends, [row, row], "|-", color=COLOURS["model"], lw=4, ms=16, mew=2, label=label)
        for value, text, side in zip(ends, interval.ends, ("right", "left"), strict=True):
            _note(axis, value, text, row, (-6 if side == "right" else 6, 0), side)
        if interval.truth is not None:
            axis.plot([interval.truth], [row], "x", color="black", label="exact value", zorder=3)
            _note(axis, interval.truth, number(interval.truth), row, (0, 10), "center")
    axis.set_yticks(range(len(panel.intervals)), [_plain(i.name) for i in panel.intervals])
    axis.set_ylim(len(panel.intervals) - 0.4, -0.6)
    axis.margins(x=0.35)
    _finish(figure, axis, panel.x_name, "")


@draw.register
def _(panel: Bars, figure: Any) -> None:
    axis = figure.subplots()
    known = np.nan_to_num(panel.values)
    colours = [COLOURS["model" if v == known.max() else "data"] for v in known]
    drawn = axis.barh([_plain(name) for name in panel.names], known, color=colours)
    axis.bar_label(drawn, [number(value) for value in panel.values], padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.3 * known.max() or 1.0)
    _finish(figure, axis, panel.x_name, "")


def _logarithmic(axis: Any) -> None:
    """Powers of ten, and 1, 2 and 5 times them where few of those are in sight."""
    ticker = require("matplotlib.ticker", "plot")
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    low, high = sorted(axis.get_view_interval())
    if high < 50 * low:
        axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def _cloud(axis: Any, cloud: Cloud) -> None:
    axis.plot(
        *cloud.points.T,
        linestyle="None",
        marker=_MARKERS[cloud.role],
        color=COLOURS[cloud.role],
        markersize=2.2,
        alpha=0.6,
        label=_plain(cloud.name, LEGEND),
    )


def _note(axis: Any, value: float, text: str, row: int, offset: tuple[int, int], side: str) -> None:
    axis.annotate(
        text,
        (value, row),
        offset,
        textcoords="offset points",
        ha=side,
        va="bottom" if side == "center" else "center",
        fontsize=9,
    )


def _finish(figure: Any, axis: Any, x_name: str, y_name: str) -> None:
    axis.set_xlabel(_plain(x_name))
    axis.set_ylabel(_plain(y_name))
    axis.tick_params(labelsize=8)
    _legend(figure, axis)


def _legend(figure: Any, axis: Any) -> None:
    """Below the axes, where it covers nothing."""
    handles, labels = axis.get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(
            handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8
        )


def _plain(text: str, most: int = LABEL) -> str:
    """Matplotlib reads mathematics between dollars; names are no mathematics."""
    return shortened(plain(text), most).replace("$", r"\$")
