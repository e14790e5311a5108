"""`summarise`: what a `Summary` says, measured."""

import dataclasses
import math
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from otflow.certificates.baselines import Baseline, baselines
from otflow.certificates.calibration import coverages, marginal_p_values
from otflow.certificates.course import Course
from otflow.certificates.summary import Compared, Summary, findings
from otflow.certificates.two_sample import TwoSample, mmd
from otflow.data.columns import check_inside
from otflow.data.conditions import refuse_condition
from otflow.data.quirks import quirks
from otflow.flow.flow import Flow
from otflow.flow.normalisation import Integral, doubt, told
from otflow.flow.objective import nll
from otflow.model.model import Model
from otflow.parallel.batching import map_rows
from otflow.support.precision import dtype_of, precision
from otflow.support.statistics import Estimate

LEAST_ROWS = 40
_BATCH = 2**13
_DRAWS = 2**13
_COVERED = 2000  # rows at most that coverage is taken over
_OWN_ROWS, _OWN_DRAWS = 300, 99  # of a conditional flow: rows, and draws for each of them
_TEST_ROWS = 800  # a side


class _Scored(NamedTuple):
    """Rows in the flow's space, with what the flow makes of them."""

    z: Float[np.ndarray, "n d"]
    condition: Float[np.ndarray, "n k"] | None
    log_prob: Float[np.ndarray, " n"]  # in that space; -inf where there is none
    ends: Float[np.ndarray, "n d"]
    straightness: Float[np.ndarray, " n"]
    good: Bool[np.ndarray, " n"]


class _Drawn(NamedTuple):
    """Draws, (m, d) for all rows or (m, n, d) for the first n, and their log-densities."""

    z: Float[np.ndarray, "m *n d"]
    log_prob: Float[np.ndarray, "m *n"]


def summarise(
    model: Model,
    X: Float[np.ndarray, "n d"],
    course: Course,
    integral: Integral | None = None,
    condition: object = None,
    X_train: Float[np.ndarray, "k d"] | None = None,
    condition_train: object = None,
    seed: int = 0,
) -> Summary:
    """How good a fitted model is, on rows it has not seen.

    Args:
        model: in the data's own units.
        X: rows, at least 40.
        course: how its training ended.
        integral: of its density, where it may fold and was measured.
        condition: of the rows, where the model takes one.
        X_train: rows that baselines are fitted to; None fits them to X by folds.
        condition_train: of those, where the model takes one.
        seed: of noise, draws, folds and permutations.

    Raises:
        ValueError: too few rows, or none of them has a density.
    """
    start, rng = time.perf_counter(), np.random.default_rng(seed)
    if len(X) < LEAST_ROWS:
        raise ValueError(f"X: expected at least {LEAST_ROWS} rows; got {len(X)}.")
    c = model.scaled_condition(condition, len(X))
    order = rng.permutation(len(X))  # the first of them stand for all: tables come sorted
    X, c = X[order], None if c is None else c[order]
    inside = model.chart.inside(X).all(axis=1)
    if not inside.any():
        check_inside(model.chart, X, model.names)
    x = model.chart.dequantize(X[inside], rng)
    rows = _score(model.flow, model.to_flow(x), None if c is None else c[inside])
    if not rows.good.any():
        raise ValueError("X: expected rows that have a density under the model; got none.")
    units = model.standardizer.log_det + model.chart.log_det(x)
    drawn = _draw(model.flow, rows, seed)
    train = _training(model, X_train, condition_train, rng)
    joined = _joined(rows.z, rows.condition)[rows.good]
    given = 0 if rows.condition is None else rows.condition.shape[1]
    nlls = -(rows.log_prob + units)[rows.good]
    p_values = marginal_p_values(*_side(rows, drawn), seed)
    worst = int(np.nanargmin(p_values))
    levels = np.full(len(X), -np.inf)
    levels[inside] = rows.log_prob
    moved = ((rows.ends - rows.z) ** 2).sum(axis=1)[rows.good].mean()
    found = Summary(
        n=len(X),
        dim=X.shape[1],
        nll=float(nlls.mean()),
        nll_interval=Estimate.of(nlls).interval,
        nll_standardised=float(-rows.log_prob[rows.good].mean()),
        without_density=len(X) - int(rows.good.sum()),
        compared=tuple(
            _compared(base, rows.log_prob[rows.good], float(nlls.mean()))
            for base in baselines(joined, train, given, seed)
        ),
        coverage=coverages(*_levels(rows, drawn, levels)),
        test=_test(rows, drawn, seed),
        worst_column=model.names[worst],
        worst_p_value=min(1.0, float(p_values[worst]) * X.shape[1]),
        bend=float(rows.straightness[rows.good].mean() / moved) if moved > 0 else 0.0,
        round_trip=_round_trip(model.flow, rows),
        integral=told(model.flow, integral),
        course=course,
        findings=(),
        seconds=time.perf_counter() - start,
    )
    odd = quirks(X, model.names, model.chart)
    return dataclasses.replace(found, findings=findings(found, doubt(model.flow, integral), odd))


def _training(
    model: Model, X: np.ndarray | None, condition: object, rng: np.random.Generator
) -> np.ndarray | None:
    """Training rows as baselines are fitted to them."""
    if X is None:
        refuse_condition(condition, "condition_train")
        return None
    z = model.dequantized(X, rng, "X_train")
    return _joined(z, model.scaled_condition(condition, len(z), "condition_train"))


def _joined(z: np.ndarray, condition: np.ndarray | None) -> np.ndarray:
    return z if condition is None else np.hstack([z, condition])


def _score(flow: Flow, z: np.ndarray, condition: np.ndarray | None) -> _Scored:
    """Every row through the flow, in its own precision."""
    d = flow.dim

    def push(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        with np.errstate(over="ignore", invalid="ignore"), precision(dtype_of(flow)):
            pushed = flow.push(rows[:, :d], rows[:, d:] if condition is not None else None)
            log_prob = -nll(flow.target, pushed)
        return pushed.points, log_prob, pushed.straightness, pushed.valid  # type: ignore[return-value]

    ends, log_prob, bend, valid = map_rows(push, _joined(z, condition), _BATCH)
    log_prob = np.asarray(log_prob, np.float64)
    ends = np.asarray(ends, np.float64)
    good = np.asarray(valid) & np.isfinite(log_prob) & np.isfinite(ends).all(axis=1)
    log_prob = np.where(good, log_prob, -np.inf)
    return _Scored(z, condition, log_prob, ends, np.asarray(bend, np.float64), good)


def _draw(flow: Flow, rows: _Scored, seed: int) -> _Drawn:
    """Draws with their log-densities; those without a safe inverse are left out."""
    n = min(len(rows.z), _OWN_ROWS)
    m = _DRAWS if rows.condition is None else n * _OWN_DRAWS
    own = None if rows.condition is None else np.tile(rows.condition[:n], (_OWN_DRAWS, 1))
    with precision(dtype_of(flow)):
        y = np.asarray(flow.target.sample(jax.random.key(seed), m))

    def pull(points: np.ndarray) -> tuple[np.ndarray, ...]:
        with np.errstate(over="ignore", invalid="ignore"), precision(dtype_of(flow)):
            ends = points[:, : flow.dim]
            pulled = flow.pull(ends, points[:, flow.dim :] if own is not None else None)
            log_prob = flow.target.log_prob(jnp.asarray(ends, dtype_of(flow))) - pulled.log_det
        return pulled.points, log_prob, pulled.valid

    z, log_prob, valid = map_rows(pull, _joined(y, own), _BATCH)
    z, log_prob = np.asarray(z, np.float64), np.asarray(log_prob, np.float64)
    good = valid & np.isfinite(z).all(axis=1) & np.isfinite(log_prob)
    if own is None:
        return _Drawn(z[good], log_prob[good])
    good = good.reshape(_OWN_DRAWS, n).all(axis=1)
    shape = (_OWN_DRAWS, n)
    return _Drawn(z.reshape(*shape, -1)[good], log_prob.reshape(shape)[good])


def _side(rows: _Scored, drawn: _Drawn) -> tuple[np.ndarray, np.ndarray]:
    n = len(rows.z) if rows.condition is None else drawn.z.shape[1]
    return rows.z[:n], drawn.z


def _levels(rows: _Scored, drawn: _Drawn, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-densities of rows, outside the bounds too, and of the draws they are held against."""
    if rows.condition is not None:
        return rows.log_prob[: drawn.log_prob.shape[1]], drawn.log_prob
    return levels[:_COVERED], drawn.log_prob


def _test(rows: _Scored, drawn: _Drawn, seed: int) -> TwoSample:
    """Rows against draws; of a conditional flow with their conditions, each of half of the rows."""
    if rows.condition is None:
        return mmd(rows.z[:_TEST_ROWS], drawn.z[:_TEST_ROWS], seed=seed)
    half = drawn.z.shape[1] // 2
    given = _joined(rows.z, rows.condition)[:half]
    made = np.hstack([drawn.z[0, half:], rows.condition[half : drawn.z.shape[1]]])
    return mmd(given, made, seed=seed)


def _compared(base: Baseline, log_prob: np.ndarray, own: float) -> Compared:
    if base.log_prob is None:
        return Compared(base.name, math.nan, math.nan, (math.nan, math.nan), base.told)
    gain = log_prob - base.log_prob
    mean = float(gain.mean())
    return Compared(base.name, own + mean, mean, Estimate.of(gain).interval, base.told)


def _round_trip(flow: Flow, rows: _Scored) -> float:
    """Largest distance over some of the rows, in the flow's space."""
    chosen = np.flatnonzero(rows.good)[:_COVERED]
    given = None if rows.condition is None else rows.condition[chosen]
    back = np.asarray(flow.inverse(rows.ends[chosen], given), np.float64)
    return float(np.linalg.norm(back - rows.z[chosen], axis=1).max())
