"""Columns of rows beside those of samples: one by one, and in pairs."""

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from otflow.data.preprocessing import ColumnMap
from otflow.report.content import Cloud, Curve, Curves, Mark, Panel, Scatter

_BINS = 40
_MARGINALS = 6
_PAIRS, _PART, _CELLS = 4, 64, 8  # pairs shown; columns and cells of each that are looked at
_FEW = 20  # values of a column that are shown as bars though it was not rounded
_FRAME, _ROOM = 0.001, 0.15  # quantiles that a frame shows, and room around them


def framed(
    key: str, title: str, caption: str, clouds: list[Cloud], names: tuple[str, str], alike: bool
) -> Scatter:
    """Clouds in a frame around nearly all of the first; the caption counts what lies outside.

    Args:
        key, title, caption: of the panel.
        clouds: the first decides the frame.
        names: of the axes.
        alike: one scale on both axes.
    """
    low, high = np.quantile(clouds[0].points, [_FRAME, 1 - _FRAME], axis=0)
    room = margin(low, high)
    window = np.stack([low - room, high + room])
    told = []
    for cloud in clouds:
        outside = ~((cloud.points >= window[0]) & (cloud.points <= window[1])).all(axis=1)
        if outside.any():
            told.append(f"{outside.sum()} ({cloud.name})")
    if told:
        caption += f" Outside the frame: {', '.join(told)}."
    return Scatter(key, title, caption, tuple(clouds), *names, one_scale=alike, window=window)


def margin(low: Float[np.ndarray, " d"], high: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    """Room around what is shown, in any units; never none."""
    room = _ROOM * (high - low)
    return np.where(room > 0, room, 1e-9 * (1 + np.abs(high)))


def on_axes(x: Float[np.ndarray, "n d"], chart: ColumnMap) -> Float[np.ndarray, "n d"]:
    """Rows as they are drawn: columns with one end by their logarithm, arcsinh as it was fitted.

    On their own scale a few rows far out would press all others into a line.
    """
    y, far = np.array(x, np.float64), _drawn_otherwise(chart)
    y[:, far] = chart.forward(x)[:, far]
    return y


def axes(names: tuple[str, ...], chart: ColumnMap) -> tuple[str, ...]:
    """What `on_axes` draws, in words."""
    found = list(names)
    for j in np.flatnonzero(_drawn_otherwise(chart)).tolist():
        low, high, tail = chart.lower[j], chart.upper[j], chart.tails[j]
        if tail is not None:
            found[j] = f"arcsinh(({names[j]} - {tail[0]:.3g}) / {tail[1]:.3g})"
        elif low is not None:
            found[j] = f"log({names[j]} - {low:g})" if low else f"log({names[j]})"
        else:
            found[j] = f"-log({high:g} - {names[j]})"
    return tuple(found)


def _drawn_otherwise(chart: ColumnMap) -> Bool[np.ndarray, " d"]:
    """Mapped columns, but for rounded ones and those between two ends."""
    ends = zip(chart.lower, chart.upper, strict=True)
    open_ = np.array([None in pair for pair in ends], bool)
    return open_ & ~np.array(chart.unbounded, bool) & (np.array(chart.step) == 0)


def pair_panels(
    x: Float[np.ndarray, "n d"],
    samples: Float[np.ndarray, "m d"],
    chart: ColumnMap,
    names: tuple[str, ...],
    name: str,
) -> list[Panel]:
    """The columns that depend most on one another, in pairs, on `on_axes`.

    Args:
        x: rows that are drawn, rounded columns with noise over their cells.
        samples: likewise; none where there is nothing to compare.
        chart: how the columns are mapped.
        names: of the columns.
        name: of the rows, in words.
    """
    found: list[Panel] = []
    told, x, samples = axes(names, chart), on_axes(x, chart), on_axes(samples, chart)
    for i, j in _dependent_pairs(x):
        clouds = [Cloud(name, x[:, [i, j]], "data")]
        if len(samples):
            clouds.append(Cloud("samples of the flow", samples[:, [i, j]], "model"))
        title = f"Columns {names[i]} and {names[j]}"
        caption = "Among the pairs of columns that depend most on one another."
        both = told[i], told[j]
        found.append(framed(f"pair-{i}-{j}", title, caption, clouds, both, False))
    return found


def _dependent_pairs(x: Float[np.ndarray, "n d"]) -> list[tuple[int, int]]:
    """Pairs with the largest chi-square between cells of equal shares, of the first columns."""
    part = x[:, :_PART]
    n, d = part.shape
    ranks = stats.rankdata(part, axis=0)
    cell = np.minimum((ranks - 0.5) / n * _CELLS, _CELLS - 1).astype(int)
    inside = (cell[:, :, None] == np.arange(_CELLS)).reshape(n, -1).astype(float)
    joint = (inside.T @ inside / n).reshape(d, _CELLS, d, _CELLS)
    share = inside.mean(axis=0).reshape(d, _CELLS)
    apart = share[:, :, None, None] * share
    excess = np.where(apart > 0, (joint - apart) ** 2 / np.where(apart > 0, apart, 1.0), 0.0)
    first, second = np.triu_indices(d, 1)
    order = np.argsort(-excess.sum(axis=(1, 3))[first, second], kind="stable")[:_PAIRS]
    return [(int(first[k]), int(second[k])) for k in order]


def marginal_panels(
    x: Float[np.ndarray, "n d"],
    samples: Float[np.ndarray, "m d"],
    chart: ColumnMap,
    names: tuple[str, ...],
    name: str,
) -> list[Panel]:
    """Columns by themselves, first those in which rows and samples differ most.

    Args:
        x, samples: own units; both are rounded here as `chart` rounds, and drawn `on_axes`.
        chart: how the columns are rounded and mapped.
        names: of the columns.
        name: of the rows, in words.
    """
    told = axes(names, chart)
    x, samples = (on_axes(chart.round(rows), chart) for rows in (x, samples))
    far = [
        float(stats.ks_2samp(x[:, j], samples[:, j], method="asymp").statistic)
        for j in range(x.shape[1])
    ]
    found: list[Panel] = []
    for j in np.argsort(far)[::-1][:_MARGINALS].tolist():
        caption = f"Largest difference of the distribution functions: {far[j]:.3f}."
        both, step = (x[:, j], samples[:, j]), chart.step[j]
        bins = _cells(both, step) if step > 0 else _bins(both)
        few = step > 0 or len(np.unique(x[:, j])) <= _FEW
        marks: tuple[Mark, Mark] = ("bars" if few else "line", "bars" if step > 0 else "dashes")
        curves = (
            Curve(name, *histogram(x[:, j], bins), "data", marks[0]),
            Curve("samples of the flow", *histogram(samples[:, j], bins), "model", marks[1]),
        )
        title = f"Column {names[j]}"
        found.append(Curves(f"marginal-{j}", title, caption, curves, told[j], "density"))
    return found


def _bins(both: tuple[np.ndarray, np.ndarray]) -> Float[np.ndarray, " k"]:
    low, high = np.quantile(np.concatenate(both), [0.001, 0.999])
    return np.linspace(low, high if high > low else low + 1.0, _BINS + 1)


def _cells(both: tuple[np.ndarray, np.ndarray], step: float) -> Float[np.ndarray, " k"]:
    """Edges between the values of a rounded column, or between groups of as many of them."""
    low, high = np.rint(np.quantile(np.concatenate(both), [0.001, 0.999]) / step)
    group = max(1, int(np.ceil((high - low + 1) / _BINS)))
    return step * (np.arange(low, high + 1 + group, group) - 0.5)


def histogram(
    x: Float[np.ndarray, " n"], bins: Float[np.ndarray, " k"]
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """Middles of the bins, and the share of all values in each over its width."""
    counts, _ = np.histogram(x, bins)
    return (bins[1:] + bins[:-1]) / 2, counts / (len(x) * np.diff(bins))
