"""A start from the transport plan: stages regressed on a discrete optimal plan (SPEC 2.2).

The likelihood alone leaves mass in the wrong component of a target with several; an optimal plan
between rows and draws from the target puts it in the right one.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from otflow.compiling import hot_jit
from otflow.potentials.base import AbstractStages
from otflow.precision import cast, dtype_of
from otflow.targets import AbstractTarget
from otflow.training.rows import Rows
from otflow.training.step import split_trainable

_POINTS = 2048  # a side of a plan: exact in about a second
_PLANS = 3
_STEPS, _BATCH, _RATE = 1000, 512, 0.02


def start_from_plan(
    potential: AbstractStages, rows: Rows, target: AbstractTarget, seed: int
) -> AbstractStages:
    """The stages that carry rows along straight lines to their partners, in least squares.

    Args:
        potential: the stages to start from.
        rows: unconditional, on the host; rows of more weight are drawn more often.
        target: what can be sampled.
        seed: of rows, draws and batches.
    """
    x, y = pairs(rows, target, seed)
    params, static = split_trainable(potential)
    ends = cast((x, y), dtype_of(params))
    order = np.random.default_rng([seed, 3]).integers(len(x), size=(_STEPS, _BATCH))
    return eqx.combine(_regress(params, static, *ends, order), static)


def pairs(
    rows: Rows, target: AbstractTarget, seed: int
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d"]]:
    """Rows and their partners, from several exact plans of equal numbers of both."""
    rng = np.random.default_rng([seed, 2])
    x = np.asarray(rows.x, np.float64)
    share = None if rows.weight is None else np.asarray(rows.weight, np.float64)
    share = None if share is None else share / share.sum()
    size = min(_POINTS, len(x))
    keys = jax.random.split(jax.random.key(seed + 1), _PLANS)
    starts, ends = [], []
    for key in keys:
        start = x[rng.choice(len(x), size, replace=share is not None, p=share)]
        end = np.asarray(target.sample(key, size), np.float64)
        starts.append(start)
        ends.append(end[linear_sum_assignment(cdist(start, end, "sqeuclidean"))[1]])
    return np.concatenate(starts), np.concatenate(ends)


@hot_jit
def _regress(params: Any, static: Any, x: Array, y: Array, order: Array) -> Any:
    schedule = optax.warmup_cosine_decay_schedule(0.1 * _RATE, _RATE, 50, len(order), 0.01 * _RATE)
    optimiser = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))

    def loss(params: Any, x: Array, y: Array) -> Array:
        potential = eqx.combine(params, static)
        K = potential.n_steps

        def miss(k: int) -> Array:
            start, end = x + (k / K) * (y - x), x + ((k + 1) / K) * (y - x)
            return jnp.mean(jnp.sum((potential.image(start, k / K) - end) ** 2, axis=1))

        return K * sum(miss(k) for k in range(K))

    def step(carry: tuple[Any, Any], index: Array) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        updates, state = optimiser.update(jax.grad(loss)(params, x[index], y[index]), state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimiser.init(params)), order)[0][0]
