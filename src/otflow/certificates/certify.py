"""`certify`: how optimal a flow is, with a label on every line (SPEC 6)."""

import time
from typing import Any

import numpy as np
from jaxtyping import Float

from otflow.certificates import lines as write
from otflow.certificates import measure
from otflow.certificates.certificate import Certificate
from otflow.certificates.findings import findings
from otflow.certificates.fitting import DualConfig
from otflow.certificates.geometry import bending_directions
from otflow.certificates.task import Task
from otflow.flow.flow import Flow
from otflow.model.model import Model
from otflow.support.checks import check_count
from otflow.support.precision import default_rules
from otflow.targets import AbstractTarget


@default_rules()
def certify(
    flow: Flow,
    X: Float[np.ndarray, "n d"] | None = None,
    *,
    density: AbstractTarget | None = None,
    entropy: float | None = None,
    alpha: float | None = None,
    X_holdout: Float[np.ndarray, "k d"] | None = None,
    n: int | None = None,
    n_train: int | None = None,
    parameters: float | None = None,
    seconds: float = 60.0,
    seed: int = 0,
    confidence: float = 0.95,
    config: DualConfig | None = None,
    space: str = "the space the flow was trained in",
) -> Certificate:
    """Bracket 1/2 W2^2(rho0, T#rho0) and check everything that can be checked from outside.

    The flow is taken as a given map, evaluated in float64. Statements about rho0 hold for the law
    that the rows come from, so give rows that the flow was not trained on.

    Args:
        flow: the flow.
        X: rows of rho0, (n, d), n >= 40, in the space the flow was trained in; halved into fitting
            and evaluation rows. May be None with a density.
        density: rho0 itself; then fresh draws take the place of X, and KL, Talagrand's bound and
            (with alpha) the duality gap of J_alpha are known.
        entropy: H(rho0), nats, where it is known without the density.
        alpha: weight of the KL, > 0; needed for J_alpha and the error budget.
        X_holdout: rows for the two-sample tests; by default the evaluation half of X.
        n: draws of the density; by default 2^18 (d <= 4), 2^16 (d <= 16) or 2^15.
        n_train: rows the flow was trained on, for the budget; None for fresh draws (no estimation
            error) with a density, and unknown without one.
        parameters: p_eff, the number of parameters that the training rows determine; by default
            all that are trained, which is the most it can be.
        seconds: time for fitting the dual potentials; results repeat only where it is not reached.
        seed: of everything random.
        confidence: of the bracket and of every line labelled proved, each by itself.
        config: how hard to fit the dual potentials.
        space: how the certificate names the space of its figures.

    Returns:
        The certificate; figures in (squared) units of the flow's space, nats for KL and nll.

    Raises:
        ValueError, TypeError: an argument of the wrong type, shape or range.
    """
    if getattr(flow, "condition_dim", 0):
        raise ValueError("flow: expected an unconditional flow; take flow.given(condition).")
    start = time.perf_counter()
    task = Task(flow, X, density, entropy, alpha, X_holdout, n, n_train, parameters, seconds,
                seed, confidence, DualConfig() if config is None else config)  # fmt: skip
    sample = measure.draw_sample(task)
    near = measure.inner_rows(sample)
    local = measure.local_facts(flow, near)
    dual = measure.transport_bracket(task, sample, near, bending_directions(local.jacobians))
    ratio = measure.log_ratios(task, sample.rest)
    gap = measure.penalty(task, sample, ratio)
    found = measure.facts(task, sample, near, local, dual, gap)
    lines = [
        *write.transport_lines(dual.bracket, dual.own),
        *measure.distance_lines(task, sample, ratio, found),
        *write.test_lines(found.tests, found.tested),
        *write.penalty_lines(gap, task.alpha, found.integral, confidence),
        *write.path_lines(sample.all, flow.scheme.refined() is None, confidence),
        *write.monotonicity_lines(found.violations, found.pairs, local.facts, confidence),
        write.log_det_line(local.log_det_difference, found.nll_error),
        write.invalid_line(found.invalid, found.checked, confidence),
        write.integral_line(found.integral, confidence),
    ]
    return Certificate(
        lower=dual.bracket.lower,
        upper=dual.bracket.upper,
        confidence=confidence,
        lines=tuple(lines),
        budget=measure.budget(task, near, dual, ratio, gap),
        findings=findings(found),
        invalid=found.invalid,
        checked=found.checked,
        n=dual.bracket.n,
        dim=flow.dim,
        space=space,
        seconds=time.perf_counter() - start,
    )


def certify_model(model: Any, X: Any, **options: Any) -> Certificate:
    """`certify` for a fitted `otflow.OTFlow` and rows in the data's own units.

    Args:
        model: a fitted estimator; rows go through its column transforms (rounded columns with
            fresh noise) and its standardiser; alpha, the number of training rows and p_eff are
            its own.
        X: (n, d) rows it was not trained on.
        options: of `certify`; X_holdout in the data's own units too.

    Raises:
        TypeError: not a fitted estimator of otflow.
        ValueError, TypeError: rows outside the bounds; and as `certify`.
    """
    own = getattr(model, "model_", None)
    if not isinstance(own, Model):
        raise TypeError(
            f"model: expected a fitted otflow.OTFlow; got {type(model).__name__} without model_."
        )
    noise = np.random.default_rng(check_count("seed", options.get("seed", 0), 0))
    rows = own.dequantized(X, noise)
    if (held := options.get("X_holdout")) is not None:
        options["X_holdout"] = own.dequantized(held, noise, "X_holdout")
    space = "the data's own units" if own.in_own_units else "the standardised columns"
    settings: dict[str, Any] = {"alpha": float(model.used("alpha")), "space": space}
    settings["n_train"] = getattr(model, "n_train_", None)
    settings["parameters"] = getattr(model, "effective_parameters_", None)
    settings |= options
    return certify(own.flow, rows, **settings)
