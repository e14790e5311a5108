"""The error budget: where J_alpha of a trained flow loses, and the knob for each loss (SPEC 6)."""

import math

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from otflow.certificates.certificate import BudgetItem
from otflow.certificates.sampling import Pushed, push_rows
from otflow.flow.flow import Flow
from otflow.potentials.base import AbstractPotential, SumPotential
from otflow.support.precision import cast, precision

KNOBS = {
    "integration": "raise n_steps, or use scheme='conforming'",
    "inverse": "use dtype='float64', or raise n_steps",
    "monte carlo": "give more rows (X) or more draws (n)",
    "penalty": "raise alpha",
    "estimation": "train on more rows, or lower alpha or width",
    "optimisation": "raise natural_iter or max_iter, or width",
}


def error_budget(
    alpha: float,
    integration: float,
    inverse: float,
    monte_carlo: float,
    rate_constant: float,
    parameters: float,
    n_train: float,
    counted: bool,
    gap: float | None,
) -> tuple[BudgetItem, ...]:
    """The six items, all in squared data units, the units of J_alpha.

    integration and inverse as `integration_error` and `inverse_error` give them; penalty is
    c / alpha, how far J*_alpha lies below 1/2 W2^2; estimation alpha p_eff / (2 N), zero for
    fresh draws (n_train infinite) and NaN where n_train is; `counted`: parameters
    are all that are trained, for want of p_eff; optimisation what is left of the duality gap after
    integration and estimation, NaN where no gap is known.

    Source: SPEC 4, 5 and 6.
    """
    estimation = alpha * parameters / (2 * n_train)
    rest = math.nan if gap is None else max(gap - integration - _known(estimation), 0.0)
    values = (integration, inverse, monte_carlo, rate_constant / alpha, estimation, rest)
    knobs = KNOBS | {"estimation": _of_rows(parameters, n_train, counted)}
    return tuple(
        BudgetItem(name, float(value), knob)
        for (name, knob), value in zip(knobs.items(), values, strict=True)
    )


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _of_rows(parameters: float, n_train: float, counted: bool) -> str:
    """The knob of the estimation error, with the numbers behind it."""
    knob = KNOBS["estimation"]
    if math.isnan(n_train):
        return f"{knob} (n_train was not given)"
    if math.isinf(n_train):
        return knob
    p = f"at most: all {parameters:,.0f} parameters" if counted else f"p_eff = {parameters:.4g}"
    return f"{knob} ({p}, N = {n_train:,.0f} training rows)"


def nll_error(flow: Flow, pushed: Pushed) -> Float[np.ndarray, " n"]:
    """|nll(n_steps) - nll(2 n_steps)| of every row, nats; 0 for a scheme without such an error."""
    if flow.scheme.refined() is None:
        return np.zeros(len(pushed.x))
    return np.abs(push_rows(flow, pushed.x, refined=True).nll - pushed.nll)


def integration_error(flow: Flow, pushed: Pushed, alpha: float) -> float:
    """Mean |change| of transport + alpha nll when the steps are doubled, squared data units."""
    if flow.scheme.refined() is None:
        return 0.0
    fine = push_rows(flow, pushed.x, refined=True)
    change = fine.transport - pushed.transport + alpha * (fine.nll - pushed.nll)
    return float(np.mean(np.abs(change)))


def inverse_error(flow: Flow, pushed: Pushed) -> tuple[float, float]:
    """Round trip x -> T(x) -> x' in the flow's own precision.

    Returns:
        The largest |x' - x| over the valid rows (data units), and the mean change it makes to
        1/2 |T(x) - x|^2 (squared data units). NaN where no row is valid.
    """
    x = pushed.x[pushed.valid]
    if len(x) == 0:
        return math.nan, math.nan
    back = np.asarray(flow.inverse(flow.forward(x)), np.float64)
    y = pushed.y[pushed.valid]
    moved = 0.5 * np.sum((y - back) ** 2, axis=1) - 0.5 * np.sum((y - x) ** 2, axis=1)
    return float(np.linalg.norm(back - x, axis=1).max()), float(np.abs(moved).mean())


def trainable_parameters(potential: AbstractPotential) -> int:
    """Numbers an optimiser may move."""
    if isinstance(potential, SumPotential):
        return sum(trainable_parameters(term) for term in potential.terms)
    if not potential.trainable:
        return 0
    return sum(a.size for a in jax.tree.leaves(eqx.filter(potential, eqx.is_inexact_array)))


def draws(flow: Flow, n: int, seed: int, model: bool) -> Float[np.ndarray, "n d"]:
    """n draws of the target or, with `model`, of the flow; float64."""
    key = jax.random.key(seed)
    with precision("float64"):
        exact = cast(flow, "float64")
        return np.asarray(exact.sample(key, n) if model else exact.target.sample(key, n))
