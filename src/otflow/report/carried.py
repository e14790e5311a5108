"""Rows carried through a model's flow: what a report computes once, over all of them."""

import dataclasses
import warnings
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from otflow.data.columns import check_inside
from otflow.flow.objective import nll
from otflow.parallel.batching import map_rows
from otflow.support.precision import precision
from otflow.support.statistics import covariance

DRAWN = 2000  # points of a panel
SAMPLES = 5000  # draws from the model that the rows are compared with
_BATCH = 2**14


@dataclasses.dataclass(frozen=True, eq=False)
class Carried:
    """Rows of a table, or draws from the model where no table was given.

    Attributes:
        given: whether they are a table's.
        x: in the data's own units; rounded columns with seeded noise over their cells.
        z: in the space of the flow.
        y: T(z).
        log_prob: nats, own units, where the flow is invertible.
        transport, straightness: costs of every row, in the space of the flow.
        valid: whether the flow is invertible there.
        drawn: numbers of the rows that are shown, at most `DRAWN`, chosen with the seed.
        samples: draws from the model, own units; the rows themselves where none were given.
        without: how many rows more have no density, so that nothing is said of them: they lie
            outside the bounds, or too far out for the flow's precision.
        seed: of all that is random in it.
    """

    given: bool
    x: Float[np.ndarray, "n d"]
    z: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, "n d"]
    log_prob: Float[np.ndarray, " n"]
    transport: Float[np.ndarray, " n"]
    straightness: Float[np.ndarray, " n"]
    valid: Bool[np.ndarray, " n"]
    drawn: Int[np.ndarray, " k"]
    samples: Float[np.ndarray, "m d"]
    without: int
    seed: int

    @property
    def displacement(self) -> Float[np.ndarray, " n"]:
        """|T(x) - x|^2 of every row."""
        return ((self.y - self.z) ** 2).sum(axis=1)


def carry(model: Any, X: Float[np.ndarray, "n d"] | None, seed: int) -> Carried:
    """Carry rows, or draws where X is None, through a fitted unconditional `OTFlow`.

    Raises:
        ValueError: no row has a density under the model.
    """
    samples = _samples(model, SAMPLES if X is None else min(SAMPLES, max(len(X), 100)), seed)
    own = model.model_
    x = samples if X is None else own.chart.dequantize(X, np.random.default_rng(seed))
    given = len(x)
    inside = own.chart.inside(x).all(axis=1)
    if not inside.any():
        check_inside(own.chart, x, own.names)
    z = own.to_flow(x[inside])

    def push(rows: np.ndarray) -> tuple[Any, ...]:
        with np.errstate(over="ignore", invalid="ignore"), precision(model.dtype):
            pushed = own.flow.push(rows)
            log_prob = -nll(own.flow.target, pushed)
        return pushed.points, log_prob, pushed.transport, pushed.straightness, pushed.valid

    found = map_rows(push, z, _BATCH)
    kept = np.isfinite(found[0]).all(axis=1) & (np.isfinite(found[1]) | ~found[4])
    if not kept.any():
        raise ValueError("X: expected rows that have a density under the model; got none.")
    y, log_prob, transport, straightness, valid = (part[kept] for part in found)
    x, z = x[inside][kept], z[kept]
    units = own.standardizer.log_det + own.chart.log_det(x)
    chosen = np.random.default_rng([seed, 1]).permutation(len(x))[:DRAWN]
    return Carried(
        X is not None,
        x,
        z,
        np.asarray(y, np.float64),
        log_prob.astype(np.float64) + units,
        transport.astype(np.float64),
        straightness.astype(np.float64),
        valid,
        np.sort(chosen),
        samples,
        given - len(x),
        seed,
    )


def _samples(model: Any, n: int, seed: int) -> Float[np.ndarray, "n d"]:
    """Draws in the data's own units; where the map folds the report says so itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return np.asarray(model.sample(n, random_state=seed), np.float64)


def principal(z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "d d"]:
    """Principal directions of all rows as columns, the largest variance first; signs are fixed."""
    _, basis = np.linalg.eigh(covariance(z))
    basis = basis[:, ::-1]
    return basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])])
