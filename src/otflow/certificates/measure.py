"""What `certify` measures, step by step."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from otflow.certificates import lines as write
from otflow.certificates.bounds import lower_bound
from otflow.certificates.bracket import Bracket, bracket
from otflow.certificates.budget import (
    draws,
    error_budget,
    integration_error,
    inverse_error,
    nll_error,
)
from otflow.certificates.certificate import BudgetItem, Line
from otflow.certificates.findings import Facts
from otflow.certificates.fitting import convex_values, fit_dual, gaps
from otflow.certificates.geometry import (
    JacobianFacts,
    jacobian_facts,
    monotonicity_violations,
)
from otflow.certificates.penalty import PenaltyGap, penalty_gap
from otflow.certificates.sampling import Pushed, Sample, push_rows, sample_density, sample_rows
from otflow.certificates.task import Task
from otflow.certificates.two_sample import TwoSample, mmd, sliced_w2
from otflow.flow.flow import Flow
from otflow.flow.jacobian import jacobians
from otflow.flow.normalisation import Integral, density_integral, may_fold
from otflow.flow.objective import kl_terms
from otflow.potentials.base import AbstractStages
from otflow.schemes import Conforming
from otflow.support.precision import cast, precision
from otflow.support.statistics import Z95
from otflow.targets import StandardNormal

_INNER_ROWS = 2**14  # rows at which the conjugate is solved
_MOST_DRAWN = 2**12  # draws from the flow that join few fitting rows
_TEST_ROWS = 800  # a side of a two-sample test


class Local(NamedTuple):
    """Jacobians at some rows, what they say, and |reported log-det - theirs| at the valid ones."""

    jacobians: Float[np.ndarray, "k d d"]
    facts: JacobianFacts
    log_det_difference: Float[np.ndarray, " k"]

    @property
    def log_det_error(self) -> float:
        """Its mean; NaN where there is no valid row."""
        found = self.log_det_difference
        return float(np.mean(found)) if len(found) else math.nan


class Dual(NamedTuple):
    """The bracket; the potential behind it and the Fenchel gaps, at the inner rows.

    `own`: the potential is the flow's, and nothing was fitted.
    """

    bracket: Bracket
    values: Float[np.ndarray, " k"]
    gaps: Float[np.ndarray, " k"]
    own: bool


def draw_sample(task: Task) -> Sample:
    """Rows for fitting and for evaluation; of the fitting ones, those with a finite image.

    u may be fitted to any pairs of the map: few rows are joined by draws from the flow itself.
    """
    if task.density is not None:
        sample = sample_density(task.flow, task.density, task.draws, task.seed)
    elif task.X is not None:
        sample = sample_rows(task.flow, task.X, task.seed)
    fit = sample.fit
    missing = min(100 * task.flow.dim, _MOST_DRAWN) - len(fit.x)
    if missing > 0:
        drawn = push_rows(task.flow, draws(task.flow, missing, task.seed + 2, model=True))
        order = np.random.default_rng(task.seed).permutation(len(fit.x) + missing)
        fit = jax.tree.map(lambda *parts: np.concatenate(parts), fit, drawn).take(order)
    finite = np.isfinite(fit.x).all(axis=1) & np.isfinite(fit.y).all(axis=1)
    if finite.sum() < 2:
        raise ValueError("flow: expected finite T(x); got NaN or infinity at (nearly) all rows.")
    return Sample(fit.take(finite), sample.rest, sample.all)


def inner_rows(sample: Sample) -> Pushed:
    """The evaluation rows with an inner problem."""
    return sample.rest.head(min(len(sample.rest.x), _INNER_ROWS))


def local_facts(flow: Flow, pushed: Pushed) -> Local:
    """The map's Jacobian at up to 512 rows (64 beyond d = 16), finite ones only."""
    near = pushed.head(512 if flow.dim <= 16 else 64)
    J = jacobians(flow, near.x)
    finite = np.isfinite(J).all(axis=(1, 2))
    J, log_det = J[finite], near.log_det[finite]
    facts = jacobian_facts(J)
    valid = near.valid[finite]
    return Local(J, facts, np.abs(log_det - facts.log_det)[valid])


def transport_bracket(
    task: Task, sample: Sample, near: Pushed, directions: Float[np.ndarray, "k d"]
) -> Dual:
    """The flow's own potential, or one fitted on the fitting rows and evaluated on the others.

    One convex stage is T = grad u for its own u: u(x) + u*(T(x)) = <x, T(x)> at every x.
    """
    half_squared = sample.all.half_squared
    own = task.flow.potential
    if isinstance(own, AbstractStages) and task.flow.scheme == Conforming(1):
        with precision("float64"):
            values = np.asarray(cast(own, "float64").convex_value(jnp.asarray(near.x), 0.0))
        none = np.zeros(len(near.x))
        return Dual(bracket(half_squared, None, task.confidence), values, none, own=True)
    fit = sample.fit
    u = fit_dual(fit.x, fit.y, task.config, task.fit_seconds, task.seed, directions)
    found = gaps(u, near.x, near.y, task.config)
    values = convex_values(u, near.x)
    return Dual(bracket(half_squared, found, task.confidence), values, found, own=False)


def log_ratios(task: Task, pushed: Pushed) -> Float[np.ndarray, " n"] | None:
    """log rho0(x) + nll(x), nats, whose mean is the KL; None where it is not known."""
    if task.density is not None:
        with precision("float64"):
            return (
                np.asarray(cast(task.density, "float64").log_prob(jnp.asarray(pushed.x)))
                + pushed.nll
            )
    return None if task.entropy is None else pushed.nll - task.entropy


def penalty(task: Task, sample: Sample, ratio: np.ndarray | None) -> PenaltyGap | None:
    """The duality gap of J_alpha where entropy and alpha are known and every row is valid."""
    if task.alpha is None or ratio is None or not np.isfinite(ratio).all():
        return None
    return penalty_gap(
        sample,
        ratio,
        task.flow.target,
        task.alpha,
        task.config,
        task.fit_seconds,
        task.seed,
        task.confidence,
    )


def distance_lines(
    task: Task, sample: Sample, ratio: np.ndarray | None, found: Facts
) -> list[Line]:
    """Distance of T#rho0 to the target: KL and Talagrand's bound."""
    invalid = found.invalid
    controlled = False
    before = log_ratios(task, sample.fit)
    if task.density is not None and before is not None and ratio is not None and not invalid:
        # chosen on the fitting rows, so that the choice does not bias the interval
        with np.errstate(over="ignore"):
            controlled = bool(kl_terms(before).std() < before.std())
            ratio = kl_terms(ratio) if controlled else ratio
    normal = isinstance(task.flow.target, StandardNormal)
    mass = found.integral
    return write.distance_lines(ratio, invalid, controlled, normal, mass, task.confidence)


def _integral(task: Task, near: Pushed) -> Integral | None:
    """Of the density; None where the map cannot fold."""
    return density_integral(task.flow, near.x, task.seed) if may_fold(task.flow) else None


def facts(
    task: Task, sample: Sample, near: Pushed, local: Local, dual: Dual, gap: PenaltyGap | None
) -> Facts:
    """All that findings are made from."""
    tests, tested = _law_tests(task, sample)
    all_rows, bend = sample.all, sample.all.straightness
    return Facts(
        invalid=int((~all_rows.valid).sum()),
        checked=len(all_rows.x),
        moved=2 * dual.bracket.half_displacement,
        spread=float(sample.rest.x.var(axis=0).sum()),
        excess=dual.bracket.excess,
        violations=monotonicity_violations(all_rows.x, all_rows.y),
        pairs=len(all_rows.x) // 2,
        smallest=float(local.facts.smallest.min()),
        asymmetry=local.facts.rms_asymmetry,
        bend=float(np.mean(bend)),
        bend_low=lower_bound(bend, (1 + task.confidence) / 2).value,
        log_det_error=local.log_det_error,
        nll_error=float(np.mean(nll_error(task.flow, near.head(1024)))),
        integral=_integral(task, near),
        tests=tests,
        tested=tested,
        penalty=gap,
    )


def _law_tests(task: Task, sample: Sample) -> tuple[dict[str, TwoSample], int]:
    """Two-sample tests of T#rho0 and of the flow's law, and their rows a side."""
    held = sample.rest if task.X_holdout is None else push_rows(task.flow, task.X_holdout)
    finite = np.isfinite(held.y).all(axis=1)
    k = min(int(finite.sum()), _TEST_ROWS)
    if k < 2:
        return {}, k
    x, y = held.x[finite][:k], held.y[finite][:k]
    target = draws(task.flow, k, task.seed, model=False)
    model = draws(task.flow, k, task.seed + 1, model=True)
    model = model[np.isfinite(model).all(axis=1)]
    pairs = {"T(rows) against target": (y, target), "samples against rows": (model, x)}
    tests: dict[str, TwoSample] = {}
    for name, (a, b) in pairs.items():
        tests[f"{name}, MMD"] = mmd(a, b, seed=task.seed)
        tests[f"{name}, sliced W2"] = sliced_w2(a, b, seed=task.seed)
    return tests, k


def budget(
    task: Task, near: Pushed, dual: Dual, ratio: np.ndarray | None, gap: PenaltyGap | None
) -> tuple[BudgetItem, ...]:
    """The error budget of J_alpha; empty without alpha.

    c = 1/2 Var psi with psi(y) = 1/2 |y|^2 - u*(y), the dual potential on the target side, over the
    flow's own end points.
    """
    if task.alpha is None:
        return ()
    x, y = near.x, near.y
    conjugate = dual.gaps - dual.values + np.sum(x * y, axis=1)
    psi = 0.5 * np.sum(y**2, axis=1) - conjugate
    values = near.transport + task.alpha * near.nll if ratio is None else None
    if values is None and ratio is not None:
        values = near.transport + task.alpha * ratio[: len(x)]
    small = near.head(1024)
    spread = float(np.std(values)) if values is not None and np.isfinite(values).all() else math.nan
    return error_budget(
        alpha=task.alpha,
        integration=integration_error(task.flow, small, task.alpha),
        inverse=inverse_error(task.flow, small)[1],
        monte_carlo=Z95 * spread / math.sqrt(dual.bracket.n),
        rate_constant=0.5 * float(np.var(psi)),
        parameters=task.effective_parameters,
        n_train=task.training_rows,
        counted=task.parameters is None,
        gap=None if gap is None else gap.gap,
    )
