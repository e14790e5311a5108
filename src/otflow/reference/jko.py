"""The JKO scheme and the gradient flow it follows, exactly: SPEC 7.

One step from rho_n is the finite-penalty problem of SPEC 4 with alpha = tau, and its end law
rho_(n+1) = T#rho_n is where the next begins: for a normal law by its closed form, on the line by
the law of the optimal y_n, for rotated products factor by factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float

from otflow.reference.base import AbstractReference
from otflow.reference.densities import AbstractDensity1D, Mixture1D
from otflow.reference.gaussian import GaussianReference, gaussian
from otflow.reference.numerics import log_excess
from otflow.reference.one_dimensional import OneDimensionalReference, solve_1d
from otflow.reference.product import ProductReference, product
from otflow.reference.pushed import PushedDensity1D
from otflow.support.checks import check_count, check_number, check_points


@final
@dataclass(frozen=True, eq=False)
class JKO:
    """The iterates rho_0, ..., rho_N of the JKO scheme to N(0, I); see `jko`.

    Fields (float64; squared data units and nats):
        tau: the penalty of every step.
        laws: N+1 exact problems, the n-th that of rho_n at alpha = tau: its `map` is T_n, its end
            law rho_(n+1), its `half_w2_squared` 1/2 W2^2(rho_n, N(0, I)).
        kl: KL(rho_n || N(0, I)), (N+1,).
        half_w2_squared: 1/2 W2^2(rho_n, N(0, I)), (N+1,).
        transport: 1/2 W2^2(rho_n, rho_(n+1)), (N,).
    """

    tau: float
    laws: tuple[AbstractReference, ...]
    kl: Float[np.ndarray, " N+1"]
    half_w2_squared: Float[np.ndarray, " N+1"]
    transport: Float[np.ndarray, " N"]

    def map(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """T_(N-1) o ... o T_0, from rho_0 to rho_N; (n, d) -> (n, d)."""
        points = check_points("x", x, self.laws[0].dim)
        for law in self.laws[:-1]:
            points = law.map(points)
        return points

    @property
    def dissipation(self) -> float:
        """tau (KL_0 - KL_N) - sum 1/2 W2^2(rho_n, rho_(n+1)) >= 0, the energy identity (SPEC 7)."""
        return float(self.tau * (self.kl[0] - self.kl[-1]) - self.transport.sum())


def jko(problem: AbstractReference, tau: Any, steps: Any) -> JKO:
    """The exact JKO scheme: rho_(n+1) = argmin 1/2 W2^2(rho_n, mu) + tau KL(mu || N(0, I)).

    Arguments:
        problem: `gaussian`, `mixture_1d`, `density_1d` or `product` of rho_0, at any alpha.
        tau: penalty of every step, finite and > 0.
        steps: N >= 1.

    Raises TypeError or ValueError for bad arguments. Source: SPEC 7.
    """
    check_number("tau", tau, positive=True)
    check_count("steps", steps)
    laws = [_at(problem, float(tau))]
    for _ in range(steps):
        laws.append(_after(laws[-1]))
    return JKO(
        tau=float(tau),
        laws=tuple(laws),
        kl=np.array([_kl(problem), *(law.kl for law in laws[:-1])]),
        half_w2_squared=np.array([law.half_w2_squared for law in laws]),
        transport=np.array([law.transport for law in laws[:-1]]),
    )


def gradient_flow(problem: AbstractReference, t: Any) -> AbstractReference:
    """The law at time t of the Wasserstein gradient flow of KL(. || N(0, I)), at alpha = inf.

    It solves the Ornstein-Uhlenbeck equation: a component N(m, S) is N(m e^-t, I + (S - I) e^-2t).

    Arguments:
        problem: `gaussian`, or `mixture_1d` or `product` of normal mixtures.
        t: time >= 0; N tau for N steps of the scheme, which it is the limit of as tau -> 0.

    Raises TypeError for another problem, ValueError for a bad time. Source: SPEC 7.
    """
    fall = math.exp(-check_number("t", t, positive=False))
    if isinstance(problem, GaussianReference):
        cov = (problem.axes * (1 + (problem.stds**2 - 1) * fall**2)) @ problem.axes.T
        return gaussian(problem.mean * fall, cov, math.inf)
    if isinstance(problem, OneDimensionalReference):
        return solve_1d(_cooled(problem.density, fall), math.inf)
    if isinstance(problem, ProductReference):
        known = {f.density: _cooled(f.density, fall) for f in problem.factors}
        factors = [known[f.density] for f in problem.factors]
        return product(factors, problem.rotation, alpha=math.inf)
    raise _unknown(problem)


def optimal_map(
    first: AbstractReference, second: AbstractReference, x: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "n d"]:
    """The optimal map between two laws of one family at points of the first, (n, d) -> (n, d).

    From rho_0 to an iterate or to the gradient flow it is where the point has gone: all maps on the
    way increase along the same axes, so that their composition is optimal too.

    Arguments:
        first, second: normal laws with common axes, laws on the line, or products of one rotation.
        x: (n, d).

    Raises TypeError or ValueError where the laws are not two of one family.
    """
    points = check_points("x", x, first.dim)
    if isinstance(first, GaussianReference) and isinstance(second, GaussianReference):
        A, B = _roots(first, second)
        return second.mean + (points - first.mean) @ np.linalg.solve(A, B)
    if isinstance(first, OneDimensionalReference) and isinstance(second, OneDimensionalReference):
        scores = first.density.normal_score(points.ravel())
        return second.panels.quantile(scores).reshape(points.shape)
    z, pairs = points @ _rotation(first, second), _factors(first, second)
    ends = [optimal_map(*pair, z[:, [i]]) for i, pair in enumerate(pairs)]
    return np.hstack(ends) @ _rotation(first, second).T


def w2(first: AbstractReference, second: AbstractReference) -> float:
    """W2 between two laws of one family, such as an iterate and the gradient flow; data units.

    Raises TypeError or ValueError as `optimal_map`.
    """
    if isinstance(first, GaussianReference) and isinstance(second, GaussianReference):
        A, B = _roots(first, second)
        return math.sqrt(np.sum((first.mean - second.mean) ** 2) + np.sum((A - B) ** 2))
    if isinstance(first, OneDimensionalReference) and isinstance(second, OneDimensionalReference):
        panels = first.panels
        way = second.panels.quantile(panels.scores.ravel()) - panels.quantiles.ravel()
        return math.sqrt(np.sum(panels.weights.ravel() * way**2))
    pairs = _factors(first, second)
    known = {pair: w2(*pair) for pair in dict.fromkeys(pairs)}
    return math.hypot(*(known[pair] for pair in pairs))


def _roots(first: GaussianReference, second: GaussianReference) -> list[np.ndarray]:
    """The symmetric roots of two covariances that commute."""
    A, B = ((law.axes * law.stds) @ law.axes.T for law in (first, second))
    if A.shape != B.shape or np.abs(A @ B - B @ A).max() > 1e-10 * np.abs(A @ B).max():
        raise ValueError("second: expected the axes of the first; got others.")
    return [A, B]


def _rotation(first: AbstractReference, second: AbstractReference) -> np.ndarray:
    if not (isinstance(first, ProductReference) and isinstance(second, ProductReference)):
        names = type(first).__name__, type(second).__name__
        raise TypeError(f"first, second: expected laws of one family; got {' and '.join(names)}.")
    if first.dim != second.dim or np.abs(first.rotation - second.rotation).max() > 1e-12:
        raise ValueError("second: expected the rotation of the first; got another.")
    return first.rotation


def _factors(
    first: AbstractReference, second: AbstractReference
) -> list[tuple[OneDimensionalReference, OneDimensionalReference]]:
    """The pairs of factors of two products with one rotation."""
    _rotation(first, second)
    assert isinstance(first, ProductReference)
    assert isinstance(second, ProductReference)
    return list(zip(first.factors, second.factors, strict=True))


def _unknown(problem: object) -> TypeError:
    return TypeError(f"problem: expected an exact reference; got {type(problem).__name__}.")


def _cooled(density: AbstractDensity1D, fall: float) -> Mixture1D:
    """The law of the gradient flow on the line, its time given as e^-t."""
    if not isinstance(density, Mixture1D):
        kind = type(density).__name__
        raise TypeError(f"problem: expected normal mixtures, whose limit is known; got {kind}.")
    stds = np.sqrt(1 + (np.array(density.stds) ** 2 - 1) * fall**2)
    return Mixture1D(density.weights, np.array(density.means) * fall, stds)


def _at(problem: AbstractReference, alpha: float) -> AbstractReference:
    """The same law's problem at another alpha."""
    if isinstance(problem, GaussianReference):
        cov = (problem.axes * problem.stds**2) @ problem.axes.T
        return gaussian(problem.mean, cov, alpha)
    if isinstance(problem, OneDimensionalReference):
        return solve_1d(problem.density, alpha)
    if isinstance(problem, ProductReference):
        densities = [factor.density for factor in problem.factors]
        return product(densities, problem.rotation, alpha=alpha)
    raise _unknown(problem)


def _after(step: AbstractReference) -> AbstractReference:
    """The problem, at the same alpha, of the law at the end of a step."""
    if isinstance(step, GaussianReference):
        cov = (step.axes * step.mapped_stds**2) @ step.axes.T
        return gaussian(step.mapped_mean, cov, step.alpha)
    if isinstance(step, OneDimensionalReference):
        return solve_1d(_end_of(step), step.alpha)
    assert isinstance(step, ProductReference)
    known = {factor: _end_of(factor) for factor in dict.fromkeys(step.factors)}
    factors = [known[factor] for factor in step.factors]
    return product(factors, step.rotation, alpha=step.alpha)


def _kl(problem: AbstractReference) -> float:
    """KL(rho_0 || N(0, I)), by sums of terms that are not negative."""
    if isinstance(problem, GaussianReference):
        s = problem.stds
        return float(0.5 * np.sum((s - 1) ** 2 + problem.mean**2) + log_excess(s - 1).sum())
    if isinstance(problem, OneDimensionalReference):
        return problem.panels.kl
    assert isinstance(problem, ProductReference)
    return math.fsum(_kl(factor) for factor in problem.factors)


def _end_of(step: OneDimensionalReference) -> PushedDensity1D:
    assert step.displacement is not None
    return PushedDensity1D(step.displacement)
