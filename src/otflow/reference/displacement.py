"""Newton's method for the displacement w(s), in spectral elements: the 1-d problem of SPEC 4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float
from scipy.linalg import solveh_banded

from otflow.reference.numerics import TRUSTED, PiecewisePolynomial, log_excess
from otflow.reference.panels import DEGREE, DIFFERENTIATE, INTERPOLATE, QuantilePanels

_MOST_STEPS = 300


@final
@dataclass(frozen=True, eq=False)
class Solution:
    """The minimiser w and its costs: transport in squared data units, KL in nats."""

    displacement: PiecewisePolynomial
    transport: float
    kl: float
    steps: int


@final
class _Problem:
    """J_alpha(w) / (1 + alpha) over continuous piecewise polynomials w, as nodal values."""

    def __init__(self, panels: QuantilePanels, alpha: float):
        count = len(panels.edges) - 1
        self.panels, self.alpha = panels, alpha
        self.index = np.arange(count)[:, None] * DEGREE + np.arange(DEGREE + 1)
        self.size = count * DEGREE + 1
        self.slope_scale = (2.0 / np.diff(panels.edges))[:, None]
        self.scores = self.flatten(panels.node_scores)
        self.gap = panels.scores - panels.quantiles
        # shares of the two costs in the scaled objective
        self.near, self.far = 1.0 / (1.0 + alpha), alpha / (1.0 + alpha)

    def flatten(self, nodal: Float[np.ndarray, "panels nodes"]) -> Float[np.ndarray, " size"]:
        return np.append(nodal[:, :-1].ravel(), nodal[-1, -1])

    def at_quadrature(
        self, w: Float[np.ndarray, " size"]
    ) -> tuple[Float[np.ndarray, "panels q"], Float[np.ndarray, "panels q"]]:
        """w and w' at the quadrature nodes."""
        nodal = w[self.index]
        return nodal @ INTERPOLATE.T, (nodal @ DIFFERENTIATE.T) * self.slope_scale

    def costs(self, w: Float[np.ndarray, " size"]) -> tuple[float, float]:
        """Transport and KL; KL = E[w^2/2 + w' - log(1 + w')]."""
        value, slope = self.at_quadrature(w)
        weights = self.panels.weights
        transport = float(0.5 * np.sum(weights * (self.gap + value) ** 2))
        return transport, float(np.sum(weights * (0.5 * value**2 + log_excess(slope))))

    def objective(self, w: Float[np.ndarray, " size"]) -> float:
        transport, kl = self.costs(w)
        return self.near * transport + self.far * kl

    def lowest_slope(self, w: Float[np.ndarray, " size"]) -> float:
        return float(np.min(1.0 + self.at_quadrature(w)[1]))

    def newton_step(
        self, w: Float[np.ndarray, " size"]
    ) -> tuple[Float[np.ndarray, " size"], float]:
        """The Newton step and its decrement squared, from a banded Cholesky factor."""
        value, slope = self.at_quadrature(w)
        weights, stretch = self.panels.weights, 1.0 + slope
        force = weights * (value + self.near * self.gap)
        tension = self.far * weights * slope / stretch * self.slope_scale
        local = force @ INTERPOLATE + tension @ DIFFERENTIATE
        stiffness = self.far * weights * (self.slope_scale / stretch) ** 2
        hessian = np.einsum("eq,qa,qb->eab", weights, INTERPOLATE, INTERPOLATE, optimize=True)
        hessian += np.einsum(
            "eq,qa,qb->eab", stiffness, DIFFERENTIATE, DIFFERENTIATE, optimize=True
        )
        gradient, banded = np.zeros(self.size), np.zeros((DEGREE + 1, self.size))
        count = len(local)
        for b in range(DEGREE + 1):
            gradient[b::DEGREE][:count] += local[:, b]
            for a in range(b + 1):
                banded[DEGREE - (b - a), b::DEGREE][:count] += hessian[:, a, b]
        scale = 1.0 / np.sqrt(banded[-1])
        for offset in range(DEGREE + 1):
            banded[DEGREE - offset, offset:] *= scale[offset:] * scale[: self.size - offset]
        scaled = solveh_banded(banded, -gradient * scale, check_finite=False)
        step = scaled * scale
        return step, float(-gradient @ step)


def solve_displacement(panels: QuantilePanels, alpha: float) -> Solution:
    """Minimise J_alpha over w, for finite alpha > 0.

    Starts from the average y = (X + alpha s) / (1 + alpha) of the data and the target, halves steps
    that do not decrease the objective, and stops when a full step changes w by less than 1e-7 of
    its size: the next one, still taken, is then exact to rounding.

    Raises RuntimeError when that takes more than 300 steps.
    """
    problem = _Problem(panels, alpha)
    trusted = np.abs(problem.scores) <= TRUSTED
    w = (problem.flatten(panels.node_quantiles) - problem.scores) * problem.near
    if problem.lowest_slope(w) <= 0:
        w = np.zeros_like(w)
    for count in range(1, _MOST_STEPS + 1):
        step, decrement = problem.newton_step(w)
        length = _step_length(problem, w, step, decrement)
        w = w + length * step
        change, size = (float(np.max(np.abs(v[trusted]))) for v in (step, w))
        if length == 1.0 and change <= max(1e-7 * size, 1e-13):
            last = w + problem.newton_step(w)[0]
            w = last if problem.lowest_slope(last) > 0 else w
            transport, kl = problem.costs(w)
            return Solution(panels.polynomial(w[problem.index]), transport, kl, count)
    raise RuntimeError(f"Newton's method did not converge in {_MOST_STEPS} steps; alpha={alpha!r}.")


def _step_length(
    problem: _Problem,
    w: Float[np.ndarray, " size"],
    step: Float[np.ndarray, " size"],
    decrement: float,
) -> float:
    """1 or the first half, quarter, ... that keeps the map monotone and decreases the objective."""
    length, start = 1.0, problem.objective(w)
    slack = 1e-14 * abs(start)
    for _ in range(60):
        trial = w + length * step
        bound = start - 0.1 * length * decrement + slack
        if problem.lowest_slope(trial) > 0 and problem.objective(trial) <= bound:
            return length
        length *= 0.5
    return length
