"""Tables of the two tails of a one-dimensional density that is known only by its logarithm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from otflow.reference.densities import TabulatedDensity1D, gauss_integral
from otflow.support.checks import check_array, check_real

_REACH = 45.0  # infinite ends are cut at centre +- scale * sinh(45) = 1.7e19 scales
_NEGLIGIBLE = 1e-60  # panels below this mass need no refinement
_MOST_PANELS = 20_000


def tabulate(
    log_density: Any,
    support: Any = (-math.inf, math.inf),
    *,
    centre: Any = 0.0,
    scale: Any = 1.0,
    breaks: Any = (),
) -> TabulatedDensity1D:
    """Integrate a normalised, bounded density on panels refined until each is exact to 1e-13.

    Arguments:
        log_density: (n,) -> (n,) log rho0 in nats, vectorised over NumPy arrays.
        support: the open interval (low, high) where the density is positive; ends may be infinite.
        centre, scale: roughly where and how wide the bulk is; panels are uniform in
            arcsinh((x - centre) / scale).
        breaks: points inside the support where the density is not smooth.

    Raises TypeError when log_density is not callable or returns the wrong shape, ValueError for a
    bad support, scale, break, a NaN, or a total mass that differs from 1 by more than 1e-6.
    """
    if not callable(log_density):
        raise TypeError(f"Expected log_density to be callable; got {type(log_density)}.")
    low, high, points = _check_geometry(support, breaks)
    centre, scale = check_real("centre", centre), check_real("scale", scale)
    if not (math.isfinite(centre) and 0 < scale < math.inf):
        raise ValueError(f"Expected a finite centre and scale > 0; got {centre!r}, {scale!r}.")
    _check_values(log_density, low, high, centre, scale)
    ends = [_to_panel(x, centre, scale) for x in (low, *points, high)]
    cuts = [np.linspace(a, b, max(2, math.ceil((b - a) * 10) + 1)) for a, b in _pairs(ends)]
    exact = np.array([low, *points, high])
    edges, masses = _refine(log_density, np.unique(np.concatenate(cuts)), centre, scale, exact)
    total = float(masses.sum())
    if not abs(total - 1.0) <= 1e-6:
        raise ValueError(
            f"Expected log_density to integrate to 1 within 1e-6; got a mass of {total!r} (if the "
            "density is normalised, give centre, scale and breaks so that the panels see it)."
        )
    masses = masses / total
    return TabulatedDensity1D(
        log_density=log_density,
        edges=edges,
        below=np.concatenate([[0.0], np.cumsum(masses)]),
        above=np.concatenate([np.cumsum(masses[::-1])[::-1], [0.0]]),
        log_mass=math.log(total),
        break_points=points,
    )


def _pairs(values: list[float]) -> list[tuple[float, float]]:
    return list(itertools.pairwise(values))


def _to_panel(x: float, centre: float, scale: float) -> float:
    return math.copysign(_REACH, x) if math.isinf(x) else math.asinh((x - centre) / scale)


def _check_geometry(support: Any, breaks: Any) -> tuple[float, float, tuple[float, ...]]:
    if not isinstance(support, Sequence) or len(support) != 2:
        raise TypeError(f"Expected support to be a pair (low, high); got {support!r}.")
    low, high = (check_real("support", end) for end in support)
    if not low < high:
        raise ValueError(f"Expected support with low < high; got {support!r}.")
    points = () if len(breaks) == 0 else tuple(np.unique(check_array("breaks", breaks, (None,))))
    if any(not low < point < high for point in points):
        raise ValueError(f"Expected breaks inside the support {support!r}; got {breaks!r}.")
    return low, high, tuple(float(point) for point in points)


def _check_values(
    log_density: Callable[[Any], Any], low: float, high: float, centre: float, scale: float
) -> None:
    near = min(max(centre, low), high)
    probe = np.linspace(max(low, near - scale), min(high, near + scale), 7)[1:-1]
    values = np.asarray(log_density(probe))
    if values.shape != probe.shape:
        raise TypeError(
            f"Expected log_density to map shape {probe.shape} to itself; got {values.shape}."
        )
    if np.any(np.isnan(values)):
        raise ValueError("Expected log_density without NaN; got NaN inside the support.")


def _refine(
    log_density: Any,
    cuts: Float[np.ndarray, " cuts"],
    centre: float,
    scale: float,
    exact: Float[np.ndarray, " exact"],
) -> tuple[Float[np.ndarray, " edges"], Float[np.ndarray, " panels"]]:
    """Halve panels until one rule and two half rules agree; edges in x, ascending, and masses."""

    def position(t: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        return centre + scale * np.sinh(t)

    left, right = cuts[:-1], cuts[1:]
    done: list[tuple[np.ndarray, np.ndarray]] = []
    for depth in range(50):
        middle = 0.5 * (left + right)
        whole = gauss_integral(log_density, position(left), position(right))
        halves = gauss_integral(log_density, position(left), position(middle))
        halves = halves + gauss_integral(log_density, position(middle), position(right))
        # a density that vanishes at a finite end cannot be known better than its argument
        size = np.abs(position(middle)) / (position(right) - position(left))
        fine = np.abs(whole - halves) <= (1e-13 + 1e-15 * size) * halves + _NEGLIGIBLE
        fine |= depth == 49
        done.append((left[fine], halves[fine]))
        left, middle, right = left[~fine], middle[~fine], right[~fine]
        left, right = np.concatenate([left, middle]), np.concatenate([middle, right])
        if left.size == 0:
            break
        if left.size > _MOST_PANELS:
            raise ValueError(
                f"Expected a piecewise smooth log_density without NaN; got one that {_MOST_PANELS} "
                "panels do not resolve (name its non-smooth points in breaks)."
            )
    starts = np.concatenate([start for start, _ in done])
    masses = np.concatenate([mass for _, mass in done])
    order = np.argsort(starts)
    edges = position(np.append(starts[order], cuts[-1]))
    for point in exact[np.isfinite(exact)]:  # the given points exactly, not through arcsinh
        edges[np.argmin(np.abs(edges - point))] = point
    return edges, masses[order]
