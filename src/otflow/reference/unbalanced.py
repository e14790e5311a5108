"""Transport with growth between weighted points: the static form, by an interior-point method."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float

from otflow.reference.discrete import half_squared_distances
from otflow.support.checks import check_alpha, check_array, check_number

_MOST_STEPS = 200
_BACK = 0.99  # share of the way to the boundary that a step goes
_LARGEST = 2.0  # change of a potential in one step, in units of 2 delta^2


@final
@dataclass(frozen=True, eq=False)
class DiscreteGrowth:
    """An optimal plan with growth between weighted points; see `wfr_discrete`.

    Fields: transport, the least price in squared data units times mass; duality_gap, how far it may
    be off, the primal less the dual value; plan (n, m); share_x (n,) and share_y (m,), of the
    potentials exp(-phi / (2 delta^2)), 0 for a point that has no partner within pi delta; the
    points x and y with mass_x (n,) and mass_y (m,).
    """

    transport: float
    duality_gap: float
    plan: Float[np.ndarray, "n m"]
    share_x: Float[np.ndarray, " n"]
    share_y: Float[np.ndarray, " m"]
    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, "m d"]
    mass_x: Float[np.ndarray, " n"]
    mass_y: Float[np.ndarray, " m"]

    def growth(self) -> Float[np.ndarray, " n"]:
        """The factor by which each point's mass grows, (n,); 0 for one that dies where it is."""
        arrives = self.plan / np.where(self.share_y > 0, self.share_y, 1.0)
        return arrives.sum(axis=1) / self.mass_x

    def map(self) -> Float[np.ndarray, "n d"]:
        """The mean of y under the mass that comes from each point, (n, d); NaN where none does."""
        arrives = self.plan / np.where(self.share_y > 0, self.share_y, 1.0)
        total = arrives.sum(axis=1, keepdims=True)
        return np.where(total > 0, arrives @ self.y / np.where(total > 0, total, 1.0), np.nan)


def wfr_discrete(
    x: Any,
    y: Any,
    mass_x: Any,
    mass_y: Any,
    *,
    delta: float,
    alpha: float = math.inf,
    tolerance: float = 1e-9,
) -> DiscreteGrowth:
    """The least price of transport with growth between weighted points.

    With the cost c = -2 delta^2 log cos^2(min(|x - y| / (2 delta), pi/2)) and the potentials'
    shares p = exp(-phi / (2 delta^2)), q of the points y,

        min_plan  sum plan c + 2 delta^2 [KL(plan 1 | mass_x) + KL(plan' 1 | mass_y)]
          = max  2 delta^2 [sum mass_x (1 - p) + sum mass_y (1 - q)],    p_i q_j >= cos^2 theta_ij,

    KL(a | b) = sum a log(a/b) - a + b. At a finite alpha the end may miss mass_y at the price of
    alpha KL(end | mass_y); the second term of the dual is then alpha sum mass_y
    (1 - exp(-2 delta^2 (1 - q) / alpha)). A primal-dual interior-point method; both values are
    those of feasible points, so that the gap bounds the error.

    Arguments:
        x, y: (n, d) and (m, d) points, data units.
        mass_x, mass_y: (n,) and (m,), > 0, of any sums.
        delta: the price of growth, > 0, data units.
        alpha: weight of the miss, > 0, squared data units; math.inf for none.
        tolerance: of the duality gap, in units of 2 delta^2 (sum mass_x + sum mass_y).

    Raises TypeError or ValueError for bad arguments, RuntimeError where the gap stays larger. Time
    grows as (n + m)^3: for a few thousand points. Source: SPEC 10; Liero, Mielke and Savare,
    Optimal entropy-transport problems and a new Hellinger-Kantorovich distance (2018).
    """
    x, y = check_array("x", x, (None, None)), check_array("y", y, (None, None))
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"y: expected {x.shape[1]} columns, those of x; got {y.shape[1]}.")
    mu, nu = _masses("mass_x", mass_x, len(x)), _masses("mass_y", mass_y, len(y))
    delta = check_number("delta", delta, positive=True)
    limit = check_number("tolerance", tolerance, positive=True) * (mu.sum() + nu.sum())
    end = _End(check_alpha(alpha) / (2 * delta**2))
    angle = np.sqrt(half_squared_distances(x, y) / 2) / delta
    near = angle < math.pi / 2
    cost = np.where(near, -2 * np.log(np.cos(np.where(near, angle, 0.0))), 0.0)
    rows, columns = near.any(axis=1), near.any(axis=0)
    plan, share_x, share_y = np.zeros(near.shape), np.zeros(len(x)), np.zeros(len(y))
    price = mu[~rows].sum() + end.value(np.full((~columns).sum(), np.inf)) @ nu[~columns]
    gap = 0.0
    if rows.any():
        inner = np.ix_(rows, columns)
        problem = _Problem(cost[inner], near[inner], mu[rows], nu[columns], end)
        found = _solve(problem, limit)
        plan[inner] = found.plan
        share_x[rows], share_y[columns] = np.exp(-found.phi), np.exp(-found.psi)
        primal, dual = problem.primal(found.plan), problem.dual(found.phi, found.psi)
        price, gap = price + primal, primal - dual
    unit = 2 * delta**2
    return DiscreteGrowth(
        unit * float(price), unit * float(gap), plan, share_x, share_y, x, y, mu, nu
    )


def _masses(name: str, value: Any, size: int) -> Float[np.ndarray, " k"]:
    masses = check_array(name, value, (size,))
    if (masses <= 0).any():
        raise ValueError(f"{name}: expected numbers > 0; got {masses.min()}.")
    return masses


class _End(NamedTuple):
    """What a potential of the end is worth a unit of mass: 1 - e^-psi, or with kappa = alpha / (2
    delta^2) finite, kappa (1 - exp(-(1 - e^-psi) / kappa)); and the price of a miss."""

    kappa: float

    def value(self, psi: np.ndarray) -> np.ndarray:
        own = -np.expm1(-psi)
        return own if math.isinf(self.kappa) else -self.kappa * np.expm1(-own / self.kappa)

    def slopes(self, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first derivative, and minus the second."""
        share = np.exp(-psi)
        first = share * np.exp(-(1 - share) / self.kappa)
        return first, first * (1 + share / self.kappa)

    def price(self, carried: np.ndarray, nu: np.ndarray) -> float:
        """min over ends of KL(carried | end) + kappa KL(end | nu)."""
        if math.isinf(self.kappa):
            return _kl(carried, nu)
        level = np.log(np.maximum(carried, nu))  # kappa (level - log nu) + 1 = carried e^-level
        for _ in range(60):
            pull = carried * np.exp(-level)
            step = (self.kappa * (level - np.log(nu)) + 1 - pull) / (self.kappa + pull)
            level = level - np.clip(step, -1.0, 1.0)
        end = np.exp(level)
        return _kl(carried, end) + self.kappa * _kl(end, nu)


def _kl(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum(a * np.log(a / b) - a + b))


class _Problem(NamedTuple):
    """All in units of 2 delta^2; pairs that are not `near` are never in a plan."""

    cost: Float[np.ndarray, "n m"]
    near: Bool[np.ndarray, "n m"]
    mu: Float[np.ndarray, " n"]
    nu: Float[np.ndarray, " m"]
    end: _End

    def primal(self, plan: np.ndarray) -> float:
        away = _kl(plan.sum(axis=1), self.mu) + self.end.price(plan.sum(axis=0), self.nu)
        return float(np.sum(plan * self.cost)) + away

    def dual(self, phi: np.ndarray, psi: np.ndarray) -> float:
        return float(self.mu @ -np.expm1(-phi) + self.nu @ self.end.value(psi))


class _Point(NamedTuple):
    plan: Float[np.ndarray, "n m"]
    phi: Float[np.ndarray, " n"]
    psi: Float[np.ndarray, " m"]


def _solve(problem: _Problem, limit: float) -> _Point:
    """Newton on slack plan = tau, tau -> 0, from inside: slack = cost - phi - psi > 0, plan > 0."""
    n, m = problem.cost.shape
    phi, psi = np.full(n, -0.1), np.full(m, -0.1)
    middle = math.sqrt(problem.mu.sum() * problem.nu.sum()) / (n * m)
    plan = np.where(problem.near, 0.2 * middle / (problem.cost + 0.2), 0.0)
    point, centring = _Point(plan, phi, psi), 0.1
    best = math.inf
    for _ in range(_MOST_STEPS):
        best = problem.primal(point.plan) - problem.dual(point.phi, point.psi)
        if best <= limit:
            return point
        point, length = _step(problem, point, centring)
        centring = 0.05 if length > 0.9 else 0.3
    raise RuntimeError(f"The interior-point method did not finish: a duality gap of {best:.2g}.")


def _step(problem: _Problem, point: _Point, centring: float) -> tuple[_Point, float]:
    """A Newton step, and which share of it was inside."""
    plan, phi, psi = point
    slack = np.where(problem.near, problem.cost - phi[:, None] - psi, 1.0)
    tau = centring * float(np.sum(plan * slack)) / problem.near.sum()
    share = problem.mu * np.exp(-phi)
    slope, bend = (problem.nu * a for a in problem.end.slopes(psi))
    ratio = np.where(problem.near, plan / slack, 0.0)
    moved = np.where(problem.near, tau / slack, 0.0) - plan
    n = len(phi)
    H = np.empty((n + len(psi),) * 2)
    H[:n, :n] = np.diag(share + ratio.sum(axis=1))
    H[n:, n:] = np.diag(bend + ratio.sum(axis=0))
    H[:n, n:], H[n:, :n] = ratio, ratio.T
    off = np.concatenate([share - (plan + moved).sum(axis=1), slope - (plan + moved).sum(axis=0)])
    root = np.sqrt(np.diag(H))
    d = np.linalg.solve(H / root[:, None] / root, off / root) / root
    d_phi, d_psi = d[:n], d[n:]
    d_slack = -(d_phi[:, None] + d_psi)
    d_plan = moved - ratio * d_slack
    shrinking = [
        np.where(problem.near & (change < 0), -value / np.where(change < 0, change, -1.0), np.inf)
        for value, change in ((slack, d_slack), (plan, d_plan))
    ]
    inside = _BACK * min(float(part.min()) for part in shrinking)
    length = min(1.0, inside, _LARGEST / float(np.abs(d).max()))
    return _Point(plan + length * d_plan, phi + length * d_phi, psi + length * d_psi), length
