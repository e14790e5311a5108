"""Panels of rows: beside samples of the model, on their way, and where they arrive."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from scipy import stats

from otflow.report.carried import DRAWN, Carried, principal
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
_MARGINALS = 6
_IMAGES = 48
_FRAMES = 21
_MOVED, _PATHS, _STRAIGHT = 600, 80, 500  # points that move, lines, rows behind straightness


def sample_section(
    model: Any, rows: Carried, data_name: str, image: tuple[int, int] | None
) -> list[Section]:
    """Rows beside samples, in the data's own units; nothing to compare where none were given."""
    panels: list[Panel] = []
    d, names = rows.x.shape[1], model.columns_
    name = data_name if rows.given else "draws from the flow"
    if image is not None:
        panels += _images(rows, name, image)
    if d == 2:
        cloud = Cloud(name, rows.x[rows.drawn], "data")
        panels.append(_heat(model, rows, cloud))
        if rows.given:
            panels.append(_compared("samples", rows.x, rows, names[0], names[1], name))
    elif d > 2:
        panels += _principal_panels(model, rows, name)
    panels += _marginals(rows, names, name)
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
            Curve("T(rows)", *_histogram(rows.y[:, 0], bins), "model"),
            Curve("target", *_histogram(draws[:, 0], bins), "target", "dashes"),
        )
        told = "Where the rows arrive, beside draws from the target."
        panels.append(Curves("target", "T(rows) and target", told, curves, "T(x)", "density"))
    else:
        panels.insert(0, _moving(model, rows))
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
    room = 0.15 * (high - low) + 1e-9
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


def _compared(
    key: str, x: np.ndarray, rows: Carried, x_name: str, y_name: str, name: str
) -> Scatter:
    clouds = (
        Cloud(name, x[rows.drawn], "data"),
        Cloud("samples of the flow", rows.samples[: len(rows.drawn)], "model"),
    )
    caption = "The two clouds should cover one another."
    return Scatter(key, "Data and samples", caption, clouds, x_name, y_name)


def _principal_panels(model: Any, rows: Carried, name: str) -> list[Panel]:
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
        if rows.given:
            z = model.model_.to_flow(rows.samples[: len(rows.drawn)])
            clouds.append(Cloud("samples of the flow", (z - centre) @ plane, "model"))
        found.append(
            Scatter(
                f"components-{i + 1}-{j + 1}",
                f"Principal components {i + 1} and {j + 1}",
                f"Standardised columns along the directions in which the rows vary most: "
                f"{share[i]:.0%} and {share[j]:.0%} of the variance.",
                tuple(clouds),
                f"component {i + 1}",
                f"component {j + 1}",
            )
        )
    return found


def _marginals(rows: Carried, names: tuple[str, ...], name: str) -> list[Panel]:
    """Columns by themselves, first those in which data and samples differ most."""
    if not rows.given:
        return []
    x, samples = rows.x, rows.samples
    far = [
        float(stats.ks_2samp(x[:, j], samples[:, j], method="asymp").statistic)
        for j in range(x.shape[1])
    ]
    found: list[Panel] = []
    for j in np.argsort(far)[::-1][:_MARGINALS].tolist():
        both = np.concatenate([x[:, j], samples[:, j]])
        low, high = np.quantile(both, [0.001, 0.999])
        bins = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
        curves = (
            Curve(name, *_histogram(x[:, j], bins), "data"),
            Curve("samples of the flow", *_histogram(samples[:, j], bins), "model", "dashes"),
        )
        caption = f"Largest difference of the distribution functions: {far[j]:.3f}."
        title = f"Column {names[j]}"
        found.append(Curves(f"marginal-{j}", title, caption, curves, names[j], "density"))
    return found


def _histogram(
    x: Float[np.ndarray, " n"], bins: Float[np.ndarray, " k"]
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """Middles of the bins, and the share of all values in each over its width."""
    counts, _ = np.histogram(x, bins)
    return (bins[1:] + bins[:-1]) / 2, counts / (len(x) * np.diff(bins))


def _moving(model: Any, rows: Carried) -> Moving:
    """Points on their paths, in the plane of the two leading principal components."""
    chosen = rows.drawn[:: max(1, len(rows.drawn) // _MOVED)][:_MOVED]
    paths = np.asarray(model.flow_.trajectories(rows.z[chosen]), np.float64)
    x_name, y_name = model.columns_[0], model.columns_[1]
    where = "the standardised columns"
    if rows.z.shape[1] > 2:
        paths = paths @ principal(rows.z)[:, :2]
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
        f"{where}; lines: paths of {len(lines)} of them. Drawn straight between the flow's "
        f"{len(paths) - 1} time steps.",
        frames,
        tuple(f"t = {t:.2f}" for t in times),
        "Time",
        0,
        Cloud("rows at time t", frames[0], "model"),
        (),
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
