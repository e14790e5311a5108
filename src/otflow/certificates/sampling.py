"""The rows a certificate works on: fitting rows and evaluation rows, pushed through the flow."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from otflow.flow.flow import Flow
from otflow.flow.objective import nll
from otflow.parallel.batching import map_rows
from otflow.potentials.base import AbstractPotential
from otflow.schemes.base import AbstractScheme
from otflow.support.precision import cast, precision
from otflow.targets import AbstractTarget

_FIT_ROWS = 2**15
_MOST_ROWS = 2**18  # of data: more are not needed
_BATCH = 1024


class Pushed(NamedTuple):
    """`otflow.schemes.Push` of n rows and their target log-density, float64 NumPy."""

    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, "n d"]
    log_det: Float[np.ndarray, " n"]
    transport: Float[np.ndarray, " n"]
    straightness: Float[np.ndarray, " n"]
    valid: Bool[np.ndarray, " n"]
    nll: Float[np.ndarray, " n"]
    hjb: Float[np.ndarray, " n"] | None

    @property
    def half_squared(self) -> Float[np.ndarray, " n"]:
        """1/2 |T(x) - x|^2."""
        return 0.5 * np.sum((self.y - self.x) ** 2, axis=1)

    def take(self, rows: slice | np.ndarray) -> "Pushed":
        """Some of the rows."""
        return jax.tree.map(lambda column: column[rows], self)

    def head(self, n: int) -> "Pushed":
        """The first n rows."""
        return self.take(slice(n))


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """Rows for fitting and, disjoint from them, for evaluation; `all` joins what may be averaged.

    From a density `all` is the evaluation rows; from data it is every row, because the mean of
    1/2 |T(x) - x|^2 involves nothing fitted.
    """

    fit: Pushed
    rest: Pushed
    all: Pushed


def sample_density(flow: Flow, density: AbstractTarget, n: int, seed: int) -> Sample:
    """Fresh draws: up to 2^15 to fit and n to evaluate. The flow is taken in float64."""
    keys = jax.random.split(jax.random.key(seed), 2)
    with precision("float64"):
        density = cast(density, "float64")
        fit, rest = (
            np.asarray(density.sample(key, rows))
            for key, rows in zip(keys, (min(_FIT_ROWS, n), n), strict=True)
        )
    rest_pushed = push_rows(flow, rest)
    return Sample(push_rows(flow, fit), rest_pushed, rest_pushed)


def sample_rows(flow: Flow, X: Float[np.ndarray, "n d"], seed: int) -> Sample:
    """Data rows shuffled and halved."""
    order = np.random.default_rng(seed).permutation(len(X))[:_MOST_ROWS]
    pushed = push_rows(flow, X[order])
    half = len(order) // 2
    return Sample(pushed.head(half), pushed.take(slice(half, None)), pushed)


def push_rows(
    flow: Flow,
    x: Float[np.ndarray, "n d"],
    refined: bool = False,
    condition: Float[np.ndarray, "n k"] | None = None,
) -> Pushed:
    """Every row through the flow in float64, batch by batch; `refined` with twice the steps.

    A conditional flow needs a condition for each, as the flow knows it.

    Raises:
        ValueError: refined, and the scheme has no integration error to refine.
    """
    scheme = flow.scheme.refined() if refined else flow.scheme
    if scheme is None:
        raise ValueError("refined: expected a scheme with an integration error; it has none.")
    with precision("float64"):
        potential, target = cast(flow.potential, "float64"), cast(flow.target, "float64")
        found = map_rows(
            lambda rows: _push(potential, target, scheme, jnp.asarray(rows)),
            np.asarray(x if condition is None else np.column_stack([x, condition]), np.float64),
            _BATCH,
        )
    log_det, transport, bend, valid, nll, *hjb = found[:, flow.dim :].T
    costs = (log_det, transport, bend, valid == 1, nll, hjb[0] if hjb else None)
    return Pushed(x, found[:, : flow.dim], *costs)


@eqx.filter_jit
def _push(
    potential: AbstractPotential, target: AbstractTarget, scheme: AbstractScheme, rows: Array
) -> Array:
    x, c = rows[:, : potential.dim], rows[:, potential.dim :]
    if potential.condition_dim:
        potential, target = potential.given(c), target.given(c)
    pushed = scheme.push(potential, x)
    columns = [pushed.log_det, pushed.transport, pushed.straightness]
    columns += [
        pushed.valid.astype(x.dtype),
        nll(target, pushed),
        *([] if pushed.hjb is None else [pushed.hjb]),
    ]
    return jnp.column_stack([pushed.points, *columns])
