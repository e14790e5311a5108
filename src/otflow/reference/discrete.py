"""Exact discrete optimal transport between point clouds, through POT (SPEC 4)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float

from otflow.support.checks import check_array, check_count, check_weights
from otflow.support.extras import require


@final
@dataclass(frozen=True, eq=False)
class DiscreteTransport:
    """An optimal plan between two weighted point clouds; see `discrete`.

    Fields: half_w2_squared in squared data units; plan (n, m), whose rows sum to weights_x (n,) and
    whose columns sum to weights_y (m,); the points x (n, d) and y (m, d); duality_gap, the primal
    less the dual value, zero up to rounding for an optimal plan.
    """

    half_w2_squared: float
    plan: Float[np.ndarray, "n m"]
    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, "m d"]
    weights_x: Float[np.ndarray, " n"]
    weights_y: Float[np.ndarray, " m"]
    duality_gap: float

    def map(self) -> Float[np.ndarray, "n d"]:
        """The barycentric map at the points x: the mean of y under each row of the plan, (n, d)."""
        return (self.plan @ self.y) / self.weights_x[:, None]


def discrete(
    x: Any,
    y: Any,
    weights_x: Any = None,
    weights_y: Any = None,
    *,
    max_iterations: int = 1_000_000,
) -> DiscreteTransport:
    """The exact optimal plan for the cost 1/2 |x - y|^2, by POT's network simplex.

    Caution: the value is 1/2 W2^2 between the two *samples*. As an estimate of 1/2 W2^2 between the
    densities behind them it is biased, upwards by O(n^(-2/d)) in high dimension (two samples of the
    same density have a positive distance); compare it only with values at the same n and m.

    Arguments:
        x, y: (n, d) and (m, d) points, data units.
        weights_x, weights_y: (n,) and (m,) positive weights with sum 1; None for equal weights.
        max_iterations: limit of the simplex iterations.

    Raises ImportError without POT (the extra `otflow[pot]`), TypeError or ValueError for bad
    arguments, RuntimeError when the simplex does not finish. Memory grows as n m.
    Source: SPEC 4; the solver: Bonneel et al., Displacement interpolation using Lagrangian mass
    transport (2011).
    """
    x, y = check_array("x", x, (None, None)), check_array("y", y, (None, None))
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"Expected x and y of the same dimension; got shapes {x.shape} and {y.shape}."
        )
    a, b = _weights("weights_x", weights_x, len(x)), _weights("weights_y", weights_y, len(y))
    limit = check_count("max_iterations", max_iterations)
    ot: Any = require("ot", "pot")
    cost = half_squared_distances(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # POT warns of a failure, which is an error below
        plan, log = ot.emd(a, b, cost, numItermax=limit, log=True, check_marginals=False)
    if log["warning"] is not None:
        raise RuntimeError(f"The network simplex did not finish: {log['warning']}")
    value = float(np.sum(plan * cost))
    dual = float(a @ log["u"] + b @ log["v"])
    return DiscreteTransport(
        half_w2_squared=value,
        plan=plan,
        x=x,
        y=y,
        weights_x=a,
        weights_y=b,
        duality_gap=value - dual,
    )


def half_squared_distances(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "n m"]:
    """1/2 |x_i - y_j|^2, centred first so that points far from the origin lose no digits."""
    centre = x.mean(axis=0)
    x, y = x - centre, y - centre
    square = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1) - 2.0 * x @ y.T
    return 0.5 * np.maximum(square, 0.0)


def _weights(name: str, weights: Any, size: int) -> Float[np.ndarray, " n"]:
    return np.full(size, 1.0 / size) if weights is None else check_weights(name, weights, size)
