"""Panels of rows: beside samples of the model, on their way, and where they arrive."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from otflow.report.carried import DRAWN, Carried, principal
from otflow.report.column_panels import (
    framed,
    histogram,
    margin,
    marginal_panels,
    pair_panels,
)
from otflow.report.content import (
    Cloud,
    Curve,
    Curves,
    Heat,
    Images,
    Moving,
    Panel,
    Scatter,
    Section,
)
from otflow.support.precision import precision

_GRID = 90  # nodes of the density's grid, each way
_BINS = 40
_EVERY = 4  # of the rows that are drawn: more would hide the density
_IMAGES = 48
_FRAMES = 21
_MOVED, _PATHS, _STRAIGHT = 600, 80, 500  # points that move, lines, rows behind straightness
_ALIKE = 4.0  # times: two columns whose deviations are nearer than that have one scale


def sample_section(
    model: Any, rows: Carried, data_name: str, image: tuple[int, int] | None
) -> list[Section]:
    """Rows beside samples, in the data's own units; nothing to compare where none were given."""
    panels: list[Panel] = []
    d, names = rows.x.shape[1], model.columns_
    name = data_name if rows.given else "draws from the flow"
    chart, noise = model.model_.chart, np.random.default_rng([rows.seed, 2])
    x, samples = rows.x[rows.drawn], rows.samples[: len(rows.drawn) if rows.given else 0]
    samples = chart.dequantize(samples, noise)
    if image is not None:
        panels += _images(rows, name, image)
    if d == 2:
        clouds = [Cloud(name, x, "data"), Cloud("samples of the flow", samples, "model")]
        panels.append(_heat(model, rows, clouds[0]))
        if rows.given:
            told = "The two clouds should cover one another."
            panels.append(framed("samples", "Data and samples", told, clouds, names, _alike(x)))
    elif d > 2:
        if image is None:
            panels += pair_panels(x, samples, chart, names, name)
        panels += _principal_panels(model, rows, samples, name)
    if rows.given:
        panels += marginal_panels(rows.x, rows.samples, chart, names, name)
    text = ""
    if rows.given:
        text = (
            f"If the flow is good, {len(rows.samples):,} samples of it look like the rows. Rows "
            "that it was trained on always look good: give others."
        )
    return [Section("Samples and data", text, tuple(panels))] if panels else []


def target_section(model: Any, rows: Carried) -> list[Section]:
    """Paths from data to target, how straight they are, and where they end."""
    panels: list[Panel] = [_straightness(model, rows)]
    d = rows.x.shape[1]
    with precision(model.dtype):
        draws = model.flow_.target.sample(jax.random.key(rows.seed), DRAWN)
    draws = np.asarray(draws, np.float64)
    if d == 1:
        low, high = np.quantile(np.vstack([rows.y, draws]), [0.001, 0.999])
        bins = np.linspace(low, high, _BINS)
        curves = (
            Curve("T(rows)", *histogram(rows.y[:, 0], bins), "model"),
            Curve("target", *histogram(draws[:, 0], bins), "target", "dashes"),
        )
        told = "Where the rows arrive, beside draws from the target."
        panels.append(Curves("target", "T(rows) and target", told, curves, "T(x)", "density"))
    else:
        panels.insert(0, _moving(model, rows, draws))
        panels.insert(1, _pushed(rows, draws))
    text = "In the space the flow was trained in: bounded columns transformed, then standardised."
    return [Section("On the way to the target", text, tuple(panels))]


def _images(rows: Carried, name: str, image: tuple[int, int]) -> list[Panel]:
    """Grey values between the least and the greatest of all rows."""
    low, high = rows.x.min(), rows.x.max()

    def panel(key: str, title: str, x: np.ndarray) -> Images:
        shown = (x[:_IMAGES] - low) / max(high - low, 1e-300)
        caption = f"{len(shown)} images of {image[0]} x {image[1]} pixels."
        return Images(key, title, caption, shown.reshape(-1, *image))

    found: list[Panel] = [panel("images-model", "Samples of the flow", rows.samples)]
    if rows.given:
        found.insert(0, panel("images-data", name, rows.x[rows.drawn]))
    return found


def _heat(model: Any, rows: Carried, cloud: Cloud) -> Heat:
    """The density on a grid over 99 % of the rows and a margin."""
    low, high = np.quantile(rows.x, [0.005, 0.995], axis=0)
    room = margin(low, high)
    x, y = (np.linspace(a, b, _GRID) for a, b in zip(low - room, high + room, strict=True))
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    density = np.exp(model.model_.log_prob(grid)[0]).reshape(_GRID, _GRID)
    points = cloud.points[::_EVERY]
    inside = ((points >= [x[0], y[0]]) & (points <= [x[-1], y[-1]])).all(axis=1)
    return Heat(
        "density",
        "Density of the flow",
        f"Colour: density per squared unit. White dots: {len(points):,} of {cloud.name}.",
        x,
        y,
        density,
        "density",
        Cloud(cloud.name, points[inside], cloud.role),
        *model.columns_,
    )


def _alike(x: Float[np.ndarray, "n 2"]) -> bool:
    low, high = np.sort(x.std(axis=0))
    return bool(high <= _ALIKE * low)


def _principal_panels(
    model: Any, rows: Carried, samples: Float[np.ndarray, "m d"], name: str
) -> list[Panel]:
    """Data and samples along pairs of the data's principal components."""
    basis, centre = principal(rows.z), rows.z.mean(axis=0)
    part = rows.z.var(axis=0).sum()
    share = ((rows.z - centre) @ basis[:, :4]).var(axis=0) / (part or 1.0)
    found: list[Panel] = []
    for i, j in ((0, 1), (2, 3)):
        if j >= basis.shape[1]:
            continue
        plane = basis[:, [i, j]]
        clouds = [Cloud(name, (rows.z[rows.drawn] - centre) @ plane, "data")]
        if len(samples):
            z = model.model_.to_flow(samples)
            clouds.append(Cloud("samples of the flow", (z - centre) @ plane, "model"))
        found.append(
            framed(
                f"components-{i + 1}-{j + 1}",
                f"Principal components {i + 1} and {j + 1}",
                f"Standardised columns along the directions in which the rows vary most: "
                f"{share[i]:.0%} and {share[j]:.0%} of the variance.",
                clouds,
                (f"component {i + 1}", f"component {j + 1}"),
                alike=True,
            )
        )
    return found


def _moving(model: Any, rows: Carried, draws: np.ndarray) -> Moving:
    """Points on their paths, in the plane of the two leading principal components."""
    chosen = rows.drawn[:: max(1, len(rows.drawn) // _MOVED)][:_MOVED]
    paths = np.asarray(model.flow_.trajectories(rows.z[chosen]), np.float64)
    x_name, y_name = model.columns_[0], model.columns_[1]
    where, goal = "the standardised columns", draws[: len(chosen)]
    if rows.z.shape[1] > 2:
        plane = principal(rows.z)[:, :2]
        paths, goal = paths @ plane, goal @ plane
        x_name, y_name, where = "component 1", "component 2", "their two principal components"
    nodes = np.linspace(0.0, 1.0, len(paths))
    times = np.linspace(0.0, 1.0, _FRAMES)
    left = np.clip(np.searchsorted(nodes, times, side="right") - 1, 0, len(nodes) - 2)
    weight = ((times - nodes[left]) / np.diff(nodes)[left])[:, None, None]
    frames = (1 - weight) * paths[left] + weight * paths[left + 1]
    lines = tuple(paths[:, i] for i in range(min(_PATHS, paths.shape[1])))
    return Moving(
        "paths",
        "From data to target",
        f"The slider moves {len(chosen):,} points from the data (t = 0) to the target (t = 1), in "
        f"{where}; lines: paths of {len(lines)} of them, straight between the flow's "
        f"{len(paths) - 1} time steps.",
        frames,
        tuple(f"t = {t:.2f}" for t in times),
        "Time",
        0,
        Cloud("rows at time t", frames[0], "model"),
        (Cloud("draws from the target", goal, "target"),),
        lines,
        x_name,
        y_name,
    )


def _pushed(rows: Carried, draws: np.ndarray) -> Scatter:
    """T(rows) beside draws from the target, where T(rows) varies most."""
    y, x_name, y_name = rows.y, "T(x), first coordinate", "second coordinate"
    chosen = y[rows.drawn]
    caption = "Pushed rows should cover draws from the target."
    if y.shape[1] > 2:
        plane = principal(y)[:, :2]
        chosen, draws = chosen @ plane, draws @ plane
        x_name, y_name = "component 1 of T(x)", "component 2"
        caption += " Shown: the two directions in which the pushed rows vary most."
    clouds = (
        Cloud("draws from the target", draws[: len(chosen)], "target"),
        Cloud("T(rows)", chosen, "model"),
    )
    return Scatter("target", "Pushed data and target", caption, clouds, x_name, y_name)


def _straightness(model: Any, rows: Carried) -> Curves:
    chosen = rows.drawn[:: max(1, len(rows.drawn) // _STRAIGHT)][:_STRAIGHT]
    t, mean, most = straightness(model, rows.z[chosen])
    curves = (
        Curve("mean", t, mean, "data", "both"),
        Curve("95 % of rows are below", t, most, "model", "dashes"),
    )
    return Curves(
        "straightness",
        "How far paths stray from straight lines",
        "Distance from the straight line at constant speed between start and end, over the mean "
        f"length of these lines; {len(chosen):,} rows. Optimal transport moves in straight lines.",
        curves,
        "time t",
        "share of the length",
    )


def straightness(
    model: Any, z: Float[np.ndarray, "n d"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Times; mean and 95 % quantile of the distance from the straight line, over E|T(z) - z|."""
    paths = np.asarray(model.flow_.trajectories(z), np.float64)
    t = np.linspace(0.0, 1.0, len(paths))
    line = paths[0] + t[:, None, None] * (paths[-1] - paths[0])
    away = np.linalg.norm(paths - line, axis=2)
    length = np.linalg.norm(paths[-1] - paths[0], axis=1).mean() or 1.0
    return t, away.mean(axis=1) / length, np.quantile(away, 0.95, axis=1) / length
