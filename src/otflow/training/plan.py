"""A start from the transport plan between rows and draws from the target (SPEC 2.2).

The likelihood alone leaves mass in the wrong component of a target with several; an optimal plan
puts it in the right one. Several stages are regressed on a discrete plan. One stage is the gradient
of a convex u, which minimises Kantorovich's dual E u(x) + E u*(y): the plan of the laws themselves,
not of a few thousand points, and not noisy in high dimensions. Under a condition rows and draws are
paired with a cost on the difference of their conditions, and stages are regressed on that plan.
"""

import math
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from otflow.data.rows import Rows
from otflow.potentials.base import AbstractPotential, AbstractStages
from otflow.support.compiling import hot_jit
from otflow.support.precision import cast, dtype_of, precision
from otflow.targets import AbstractTarget
from otflow.training.dual import descend_dual
from otflow.training.step import split_trainable

Tree = TypeVar("Tree")

_POINTS = 2048  # a side of a plan: exact in about a second
_PLANS = 3
_BESIDE = 10.0  # a deviation of the condition, in those of the rows: what a plan hardly crosses
_FAR = 5.0  # deviations from the mean at which a draw is left out of a plan under a condition
_BATCH, _RATE = 512, 0.02
_MOST = 1000  # steps of the regression


def start_from_plan(
    potential: AbstractPotential,
    rows: Rows,
    target: AbstractTarget,
    steps: int,
    seed: int,
    verbose: bool = False,
    seconds: float = math.inf,
) -> AbstractPotential:
    """The stages that carry rows to their partners, along straight lines.

    Args:
        potential: the stages to start from, under a condition where the rows have one.
        rows: on the host; rows of more weight are drawn more often.
        target: what can be sampled, under a condition where it takes one.
        steps: of Adam.
        seed: of rows, draws and batches.
        verbose: show a progress bar, on a terminal.
        seconds: within which one stage's descent of the dual ends, whatever the steps.
    """
    start = time.perf_counter()
    params, static = split_trainable(potential)
    paired = pairs(rows, target, seed)
    ends = cast((paired.start, paired.end), dtype_of(params))
    order = np.random.default_rng([seed, 3]).integers(
        len(paired.end), size=(min(steps, _MOST), _BATCH)
    )
    params = regress(params, static, _missed, ends, order)
    if potential.n_steps == 1 and isinstance(potential, AbstractStages):
        share, left = _shares(rows), seconds - (time.perf_counter() - start)
        found = descend_dual(params, static, rows, share, target, steps, seed, verbose, left)
        told = "the dual became non-finite, training starts from the discrete plan alone"
        params = if_finite(found, params, told)
    return eqx.combine(params, static)


def if_finite(found: Tree, otherwise: Tree, told: str) -> Tree:
    """What was found, or with a warning something else where not all of its numbers are finite."""
    if all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found)):
        return found
    warnings.warn(f"plan_iter: {told}; try dtype='float64'.", UserWarning, stacklevel=3)
    return otherwise


class Pairs(NamedTuple):
    """Rows, under their conditions where there are any, and where each should go."""

    start: Rows
    end: Float[np.ndarray, "n d"]


def pairs(rows: Rows, target: AbstractTarget, seed: int) -> Pairs:
    """Rows and their partners, from several exact plans of equal numbers of both.

    Under a condition every chosen row's condition has one draw of the target. The plan is of the
    draws less what their mean moves with the condition, which is added again for the row's own; it
    is that of every condition by itself as points grow many.
    """
    rng = np.random.default_rng([seed, 2])
    x = np.asarray(rows.x, np.float64)
    share = _shares(rows)
    size = min(_POINTS, len(x))
    keys = jax.random.split(jax.random.key(seed + 1), _PLANS)
    starts, given, ends = [], [], []
    for key in keys:
        index = rng.choice(len(x), size, replace=share is not None, p=share)
        start = x[index]
        if target.condition_dim:
            c = np.asarray(rows.condition, np.float64)[index]
            end, near = _partners(start, c, target, key)
            start, end = start[near], end[near]
            given.append(c[near])
        else:
            end = np.asarray(target.sample(key, size), np.float64)
            end = end[linear_sum_assignment(cdist(start, end, "sqeuclidean"))[1]]
        starts.append(start)
        ends.append(end)
    condition = np.concatenate(given) if given else None
    paired = Rows(np.concatenate(starts), None, condition)  # type: ignore[arg-type]
    return Pairs(paired, np.concatenate(ends))


def _partners(
    x: Float[np.ndarray, "n d"], c: Float[np.ndarray, "n k"], target: AbstractTarget, key: Array
) -> tuple[Float[np.ndarray, "n d"], Bool[np.ndarray, " n"]]:
    """Draws of the target, each for a row of nearly its condition, moved to just that one.

    And which are near: a fitted flow draws one of a thousand from far away, and least squares would
    follow it.
    """
    with precision(dtype_of(target)):
        y = np.asarray(target.given(jnp.asarray(c, dtype_of(target))).sample(key, len(x)))
    slope, moments = target.slope, target.moments()
    moved = np.zeros_like(x) if slope is None else c @ slope.T
    rest = y.astype(np.float64) - moved
    near = np.ones(len(x), bool)
    if moments is not None:
        off = rest - moments.mean
        near = np.sum(off * np.linalg.solve(moments.cov, off.T).T, axis=1) < _FAR**2 * x.shape[1]
    spread = np.sqrt(rest[near].var(axis=0).mean())
    beside = _BESIDE * spread * c / np.maximum(c.std(axis=0), 1e-12)
    first, second = np.column_stack([x - moved, beside]), np.column_stack([rest, beside])
    partner = linear_sum_assignment(cdist(first, second, "sqeuclidean"))[1]
    return moved + rest[partner], near[partner]


def _shares(rows: Rows) -> Float[np.ndarray, " n"] | None:
    """With which probabilities rows are drawn; None: all the same."""
    if rows.weight is None:
        return None
    weight = np.asarray(rows.weight, np.float64)
    return weight / weight.sum()


def _optimiser(steps: int) -> optax.GradientTransformation:
    warmup = min(50, steps // 2)
    schedule = optax.warmup_cosine_decay_schedule(0.1 * _RATE, _RATE, warmup, steps, 0.01 * _RATE)
    return optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))


def _missed(potential: Any, ends: tuple[Rows, Array]) -> Any:
    """How far stages miss the straight lines of a batch, squared."""
    (rows, y), x = ends, ends[0].x
    potential = potential.given(rows.condition)
    K = potential.n_steps

    def miss(k: int) -> Array:
        start, end = x + (k / K) * (y - x), x + ((k + 1) / K) * (y - x)
        return jnp.mean(jnp.sum((potential.image(start, k / K) - end) ** 2, axis=1))

    return K * sum(miss(k) for k in range(K))


@hot_jit
def regress(
    params: Any, static: Any, missed: Callable[[Any, Tree], Array], data: Tree, order: Array
) -> Any:
    """Adam on what potentials miss of batches of a plan.

    Args:
        params, static: a potential, see `split_trainable`.
        missed: of a potential and a batch.
        data: arrays whose first axis are the plan's pairs.
        order: (steps, batch), which pairs a step takes.
    """
    optimiser = _optimiser(len(order))

    def loss(params: Any, batch: Tree) -> Array:
        return missed(eqx.combine(params, static), batch)

    def step(carry: tuple[Any, Any], index: Array) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        batch = jax.tree.map(lambda array: array[index], data)
        updates, state = optimiser.update(jax.grad(loss)(params, batch), state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimiser.init(params)), order)[0][0]
