"""The picture of `otflow demo`."""

from pathlib import Path

import numpy as np

from otflow.estimator.estimator import OTFlow
from otflow.support.extras import require
from otflow.support.files import atomic_path

INK, DATA, MODEL = "#1b1b1b", "#0072b2", "#d55e00"  # colour-blind safe


def draw_demo(
    path: Path,
    real: np.ndarray,
    model: OTFlow,
    points: np.ndarray,
    flow2d: OTFlow,
    seed: int = 0,
) -> None:
    """Real digits beside samples; a 2-d flow: data, samples and trajectories.

    Args:
        path: PNG to write.
        real: held-out digits, (n >= 48, 64).
        model: the flow fitted on digits.
        points: 2-d data, (n, 2).
        flow2d: the flow fitted on points.
        seed: of the samples.
    """
    figure = require("matplotlib.figure", "plot").Figure(figsize=(11, 6.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(5, 9))
    _draw_digits(top, real[:48], model.sample(48, random_state=seed))
    _draw_plane(bottom, points, flow2d, seed)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _draw_digits(figure, real: np.ndarray, samples: np.ndarray) -> None:
    axes = figure.subplots(1, 2)
    for axis, images, title in zip(
        axes, (real, samples), ("held-out digits", "samples of the flow"), strict=True
    ):
        framed = np.pad(images.reshape(4, 12, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)))
        grid = framed.transpose(0, 2, 1, 3).reshape(40, 120)
        axis.imshow(grid, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(title, color=INK)
        axis.set_axis_off()


def _draw_plane(figure, points: np.ndarray, flow2d: OTFlow, seed: int) -> None:
    axes = figure.subplots(1, 3)
    samples = flow2d.sample(len(points), random_state=seed)
    starts = flow2d.standardizer_.forward(points[:: max(1, len(points) // 80)])
    paths = np.asarray(flow2d.flow_.trajectories(starts))
    for axis, xy, colour, title in (
        (axes[0], points, DATA, "data"),
        (axes[1], samples, MODEL, "samples of the flow"),
    ):
        axis.plot(*xy.T, ".", color=colour, markersize=2, alpha=0.5)
        _square(axis, points, title)
    axes[2].plot(paths[:, :, 0], paths[:, :, 1], color=INK, linewidth=0.6, alpha=0.6)
    axes[2].plot(*paths[0].T, ".", color=DATA, markersize=5, label="data, t = 0")
    axes[2].plot(*paths[-1].T, ".", color=MODEL, markersize=5, label="target, t = 1")
    axes[2].legend(loc="upper right", fontsize=7, framealpha=0.9)
    _square(axes[2], paths.reshape(-1, 2), "trajectories (standardised space)")


def _square(axis, points: np.ndarray, title: str) -> None:
    limit = 1.1 * np.abs(points).max()
    axis.set_xlim(-limit, limit)
    axis.set_ylim(-limit, limit)
    axis.set_aspect("equal")
    axis.tick_params(labelsize=8)
    axis.set_title(title, color=INK, fontsize=11)
