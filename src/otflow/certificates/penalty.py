"""A lower bound of J*_alpha by duality, and so the gap of a trained flow (SPEC 6)."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Float

from otflow.certificates.bounds import lower_bound, upper_bound
from otflow.certificates.convex import ConvexPotential
from otflow.certificates.fitting import DualConfig, convex_values, fit_dual, gaps
from otflow.certificates.sampling import Sample
from otflow.support.precision import cast, precision
from otflow.targets import AbstractTarget

_CHECKED = 2**14  # rows with an inner problem
_TARGET_ROWS = 2**17


@dataclasses.dataclass(frozen=True)
class PenaltyGap:
    """J_alpha of a flow and how far it can be from J*_alpha, squared data units.

    Attributes:
        objective: mean of transport + alpha KL over the evaluation rows.
        objective_interval: its two-sided interval.
        lower: a lower bound of J*_alpha; the paired differences serve as its control variate, in
            whose mean an error of the flow's log-determinant cancels.
        gap: an upper bound of J_alpha - J*_alpha, from paired differences.
        doubts: why objective_interval, lower and gap may not be called proved
            (`bounds.Bound.doubt`); empty texts where they may.
    """

    objective: float
    objective_interval: tuple[float, float]
    lower: float
    gap: float
    doubts: tuple[str, str, str] = ("", "", "")


def penalty_gap(
    sample: Sample,
    log_ratio: Float[np.ndarray, " n"],
    target: AbstractTarget,
    alpha: float,
    config: DualConfig,
    seconds: float,
    seed: int,
    confidence: float,
) -> PenaltyGap:
    """The dual value of J*_alpha at psi(y) = 1/2 |y|^2 - w(y), w convex, and the gap to it.

    For the cost 1/2 |x - y|^2, psi^c(x) = 1/2 |x|^2 - w*(x), and for every psi

        J*_alpha >= E_rho0[psi^c] - alpha log E_rho1[exp(-psi / alpha)].

    w lives on the target side, so that only psi^c has an inner problem, bounded rigorously from
    the flow's own pairs; w is fitted to carry T(x) back to x. The logarithm is bounded by its
    tangent, log m <= m / a - 1 + log a, with a from draws of its own, so that the mean may be
    replaced by a confidence bound. No part of the lower bound relies on the flow's log-determinant.

    Args:
        sample: fitting and evaluation rows.
        log_ratio: log rho0(x) + nll(x) of the evaluation rows, nats; its mean is the KL.
        target: rho1.
        alpha: weight of the KL.
        config: how hard to fit w.
        seconds: most time to fit.
        seed: of the fit and of the target's draws.
        confidence: of each of the figures.
    """
    fit, rest = sample.fit, sample.rest
    tail = (1 - confidence) / 2
    w = fit_dual(fit.y, fit.x, config, seconds, seed)
    centre, draws = (_exponentials(w, target, alpha, seed, part) for part in (0, 1))
    shift = float(centre.max())
    a = float(np.mean(np.exp(centre - shift)))
    top = upper_bound(np.exp(draws - shift), 1 - tail / 4)
    log_mean = np.log(a) + shift + top.value / a - 1
    near = rest.head(min(len(rest.x), _CHECKED))
    conjugate = conjugates(w, near.x, near.y, config)
    dual = 0.5 * np.sum(near.x**2, axis=1) - conjugate
    objective = rest.transport + alpha * log_ratio
    difference = objective[: len(near.x)] - dual
    paired = upper_bound(difference, 1 - tail / 4)
    gap = paired.value + alpha * log_mean
    ends = lower_bound(objective, 1 - tail), upper_bound(objective, 1 - tail)
    of_gap = paired.doubt or top.doubt
    return PenaltyGap(
        objective=float(objective.mean()),
        objective_interval=(ends[0].value, ends[1].value),
        lower=lower_bound(objective, 1 - tail / 2).value - gap,
        gap=gap,
        doubts=(ends[0].doubt or ends[1].doubt, ends[0].doubt or of_gap, of_gap),
    )


def conjugates(
    w: ConvexPotential,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "n d"],
    config: DualConfig,
) -> Float[np.ndarray, " n"]:
    """Bounds from above of w*(x), float64, candidates started at y, shape (n,)."""
    return gaps(w, y, x, config) - convex_values(w, y) + np.sum(x * y, axis=1)


def _exponentials(
    w: ConvexPotential, target: AbstractTarget, alpha: float, seed: int, part: int
) -> Float[np.ndarray, " n"]:
    """-psi(y) / alpha at fresh draws of the target."""
    key = jax.random.fold_in(jax.random.key(seed), part)
    with precision("float64"):
        y = np.asarray(cast(target, "float64").sample(key, _TARGET_ROWS))
    return (convex_values(w, y) - 0.5 * np.sum(y**2, axis=1)) / alpha
