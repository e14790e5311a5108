"""A certificate of a conditional flow, on average over its conditions (SPEC 6 and 9)."""

import time
from typing import Any

import numpy as np
from jaxtyping import Float

from otflow.certificates import lines as write
from otflow.certificates.bracket import Bracket, bracket, check_run
from otflow.certificates.certificate import Certificate, Finding, Line
from otflow.certificates.findings import WIDTH, not_invertible, not_shown
from otflow.certificates.fitting import DualConfig, fit_dual, gaps
from otflow.certificates.sampling import Pushed, push_rows
from otflow.flow.flow import Flow
from otflow.flow.normalisation import density_integral, may_fold
from otflow.model.model import Model
from otflow.support.checks import check_rows
from otflow.support.precision import default_rules

_LEAST_ROWS = 40
_BESIDE = 10.0  # times the condition's deviation: how far apart conditions lie beside the rows
_MEAN = "E_c 1/2 W2^2(rho0, T#rho0 given c)"


@default_rules()
def certify_conditional(
    model: Any,
    X: Any,
    condition: Any,
    *,
    seconds: float = 60.0,
    seed: int = 0,
    confidence: float = 0.95,
    config: DualConfig | None = None,
    space: str | None = None,
) -> Certificate:
    """Bracket E_c 1/2 W2^2(law of x given c, its image under T(., c)) for a conditional model.

    Rows are coupled within their own condition, so 1/2 E|T(x, c) - x|^2 is an upper bound. The
    lower bound is that of the pairs (x, s c) and (T(x, c), s c): whatever s, a coupling that may
    change c costs no more than one that may not. One convex stage is its own dual for every c.

    `model.given(c)` with rows of that c is certified by `certify_model`.

    Args:
        model: a fitted conditional estimator.
        X: (n, d) rows it was not trained on, in the data's own units, n >= 40.
        condition: (n, k), a row of it for each.
        seconds: to fit the dual potential.
        seed: of everything random.
        confidence: of the bracket and of every line labelled proved, each by itself.
        config: how hard to fit the dual potential.
        space: how the certificate names the space of its figures.

    Raises:
        ValueError, TypeError: an unconditional model, or bad rows, conditions or options.
    """
    start = time.perf_counter()
    own = getattr(model, "model_", None)
    if not isinstance(own, Model) or not own.flow.condition_dim:
        raise ValueError("model: expected a fitted conditional OTFlow; got another.")
    check_run(seconds, seed, confidence)
    noise = np.random.default_rng(seed)
    check_rows("X", X, own.flow.dim, _LEAST_ROWS)
    rows = own.dequantized(X, noise)
    c = own.scaled_condition(condition, len(rows))
    assert c is not None
    order = noise.permutation(len(rows))
    rows, c = rows[order], c[order]
    pushed = push_rows(own.flow, rows, condition=c)
    one = own.flow.potential.bijective and own.flow.scheme.n_steps == 1
    found = _bracket(pushed, c, one, config or DualConfig(), seconds, seed, confidence)
    invalid, checked = int((~pushed.valid).sum()), len(rows)
    units = "the data's own units" if own.in_own_units else "the standardised columns"
    return Certificate(
        lower=found.lower,
        upper=found.upper,
        confidence=confidence,
        lines=_lines(own.flow, pushed, c, found, one, confidence),
        budget=(),
        findings=_findings(found, invalid, checked),
        invalid=invalid,
        checked=checked,
        n=found.n,
        dim=own.flow.dim,
        space=units if space is None else space,
        seconds=time.perf_counter() - start,
    )


def _bracket(
    pushed: Pushed,
    c: Float[np.ndarray, "n k"],
    own: bool,
    config: DualConfig,
    seconds: float,
    seed: int,
    confidence: float,
) -> Bracket:
    """From a dual potential fitted to half of the rows and evaluated at the others."""
    if own:
        return bracket(pushed.half_squared, None, confidence)
    deviation = c.std(axis=0)
    beside = _BESIDE * c / np.where(deviation > 0, deviation, 1.0)
    x, y = (np.column_stack([part, beside]) for part in (pushed.x, pushed.y))
    half = len(x) // 2
    u = fit_dual(x[:half], y[:half], config, seconds, seed)
    return bracket(pushed.half_squared, gaps(u, x[half:], y[half:], config), confidence)


def _lines(
    flow: Flow,
    pushed: Pushed,
    c: Float[np.ndarray, "n k"],
    found: Bracket,
    own: bool,
    confidence: float,
) -> tuple[Line, ...]:
    integral = density_integral(flow, pushed.x, condition=c) if may_fold(flow) else None
    invalid = int((~pushed.valid).sum())
    return (
        *write.transport_lines(found, own, _MEAN),
        *write.path_lines(pushed, flow.scheme.refined() is None, confidence),
        write.invalid_line(invalid, len(c), confidence),
        write.integral_line(integral, confidence),
    )


def _findings(found: Bracket, invalid: int, checked: int) -> tuple[Finding, ...]:
    said = []
    if invalid:
        said.append(not_invertible(invalid, checked))
    if found.excess > WIDTH * found.half_displacement:
        said.append(not_shown(found.excess / max(found.half_displacement, 1e-300)))
    return tuple(said)
