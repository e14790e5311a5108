"""Figures of a study, from its summary alone."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from otflow.extras import require
from otflow.files import atomic_path
from otflow.report.demo import DATA, INK, MODEL
from otflow.studies.result import Series, StudyResult

_LABELS = {
    "kl": "KL, nats",
    "value_gap": "1/2 W2² − J",
    "ot_error": "rms distance to the OT map",
    "limit_error": "|transport + 2 alpha KL − 1/2 W2²|",
    "sd": "standard deviation of J_N",
    "loss_gap": "J(theta*) − J_N(theta_N)",
    "population_gap": "J(theta_N) − J(theta*)",
    "nll_error": "mean error of the nll, nats",
}


def draw_study(result: StudyResult, path: str | Path) -> None:
    """One log-log panel a series: means with 95 % intervals, exact values, fitted slope.

    Args:
        result: of any study with at least one finished row.
        path: PNG to write.

    Raises:
        ValueError: there is nothing to draw yet.
    """
    drawn = [s for s in result.series if s.x]
    if not drawn:
        raise ValueError("result: expected at least one finished row to draw; got none.")
    columns = min(len(drawn), 2)
    lines = -(-len(drawn) // columns)
    figure = require("matplotlib.figure", "plot").Figure(
        figsize=(5.2 * columns, 3.9 * lines), layout="constrained"
    )
    axes = np.atleast_1d(figure.subplots(lines, columns)).ravel()
    for axis, series in zip(axes, drawn, strict=False):
        _panel(axis, series, result.x_name)
    for axis in axes[len(drawn) :]:
        axis.set_axis_off()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _panel(axis: Any, series: Series, x_name: str) -> None:
    x, mean = np.array(series.x), np.array(series.mean)
    half = 1.96 * np.array(series.standard_error)
    logarithmic = series.expected is not None
    drawn = np.isfinite(mean) & ((mean > 0) | (not logarithmic))
    points, mean, half = x[drawn], mean[drawn], half[drawn]
    below = half
    if logarithmic:
        below = np.minimum(half, 0.8 * mean)
        axis.set_yscale("log")
    bars = np.stack([below, half])
    axis.errorbar(points, mean, bars, fmt="o", ms=5, color=DATA, capsize=3, label="measured")
    if series.exact is not None and np.isfinite(series.exact).any():
        label = "alpha p_eff / (2N)" if series.name == "loss_gap" else "exact"
        axis.plot(x, series.exact, color=INK, lw=1.2, label=label)
    if series.slope is not None and math.isfinite(series.slope):
        line = math.exp(series.intercept or 0.0) * x**series.slope
        label = f"fit: slope {series.slope:.2f} (theory {series.expected:g})"
        axis.plot(x, line, "--", color=MODEL, lw=1.4, label=label)
    axis.set_xscale("log")
    axis.set_xlabel(x_name)
    axis.set_title(_LABELS.get(series.name, series.name), fontsize=10, color=INK)
    axis.legend(frameon=False, fontsize=8)
    axis.grid(alpha=0.2)
