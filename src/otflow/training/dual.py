"""Kantorovich's dual for one convex stage: E u(x) + E u*(y), least where grad u is the optimal map.

Nearly all of a step's time goes into the conjugate points x* = argmax <x, y> - u(x) of its draws.
A point moves little between two visits, so Newton's method starts where it ended the last time.
"""

import math
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from otflow.data.rows import Rows
from otflow.parallel.devices import everywhere, gathered, on_shards, place, row_mesh, total
from otflow.potentials.base import AbstractStages
from otflow.schemes.newton import Inverted, invert_stage
from otflow.support.compiling import hot_jit
from otflow.support.precision import cast, dtype_of
from otflow.targets import AbstractTarget
from otflow.training.progress import TrainingProgress

_BATCH, _RATE, _WARM = 512, 0.02, 50  # points a side, peak of the rate, steps until then
_DRAWS = 2**15  # from the target
_BLOCK = 100  # steps in one call
_LOOSE = 100.0  # a residual r costs the dual r^2: no more than rounding
_NEAR = 4096  # rows, the best of which is where the search for a point starts
_OPTIMISER = optax.chain(optax.clip_by_global_norm(10.0), optax.scale_by_adam())


def descend_dual(
    params: Any,
    static: Any,
    rows: Rows,
    share: Float[np.ndarray, " n"] | None,
    target: AbstractTarget,
    steps: int,
    seed: int,
    verbose: bool = False,
    seconds: float = math.inf,
) -> Any:
    """Adam on the dual, of batches of rows and of draws, both cut over the devices.

    Args:
        params, static: a potential of one stage, see `split_trainable`.
        rows: on the host.
        share: with which probabilities they are drawn; None: all the same.
        target: what can be sampled.
        steps: at most.
        seed: of draws and batches.
        verbose: show a progress bar, on a terminal.
        seconds: within which to end, whatever the steps; the rate then falls with the clock.
    """
    start = time.perf_counter()
    rng = np.random.default_rng([seed, 2])
    draws = target.sample(jax.random.key(seed + 1), _DRAWS)
    mesh = row_mesh(_BATCH)
    batch = _BATCH - _BATCH % mesh.size  # a multiple of the devices
    ends = cast((np.asarray(rows.x), np.asarray(draws)), dtype_of(params))
    near = ends[0][rng.choice(len(rows.x), _NEAR, p=share)]
    points = _best_rows(eqx.combine(params, static), near, ends[1])
    static, ends = everywhere((static, ends), mesh)
    carry = everywhere((params, _OPTIMISER.init(params), points), mesh)
    done, clock, last = 0, _passed(start, seconds), 0.0
    with TrainingProgress(steps, verbose, "start from the plan") as bar:
        while done < steps and clock + last < 1:
            size = min(_BLOCK, steps - done), batch
            picks = rng.choice(len(rows.x), size, p=share), rng.integers(_DRAWS, size=size)
            rates = _rates(done + np.arange(size[0]), steps, clock).astype(dtype_of(params))
            carry = _block(carry, static, ends, rates, place(picks, mesh, 1), mesh)
            done += size[0]
            bar.advance_to(done)
            if math.isfinite(seconds):
                jax.block_until_ready(carry)
                before, clock = clock, _passed(start, seconds)
                last = clock - before  # another one may not fit
    return gathered(carry[0])


def _passed(start: float, seconds: float) -> float:
    """The share of the seconds that is over."""
    spent = time.perf_counter() - start
    return spent / seconds if spent < seconds else 1.0


def _rates(step: np.ndarray, steps: int, clock: float) -> np.ndarray:
    """A warm-up, and a cosine down to 1 % along the steps or the clock, whichever is further."""
    way = np.maximum(step / steps, clock)
    warm = np.minimum(1.0, 0.1 + 0.9 * step / max(1, min(_WARM, steps // 2)))
    return _RATE * warm * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * way)))


@hot_jit
def _best_rows(
    potential: AbstractStages, x: Float[Array, "k d"], y: Float[Array, "m d"]
) -> Float[Array, "m d"]:
    """The x with the highest <x, y> - u(x) for each y."""
    values = potential.convex_value(x, 0.0)
    best = jax.lax.map(lambda end: jnp.argmax(x @ end - values), y, batch_size=_BATCH)
    return x[best]


@hot_jit
def _block(carry: Any, static: Any, ends: Any, rates: Array, picks: Any, mesh: Mesh) -> Any:
    """So many steps; the carry is parameters, optimiser and the draws' conjugate points."""

    def dual(params: Any, x: Array, y: Array, found: Inverted) -> Array:
        """Its part of the batch's mean. By the envelope theorem x* is held fixed."""
        potential = eqx.combine(params, static)
        conjugate = jnp.sum(found.points * y, axis=1) - potential.convex_value(found.points, 0.0)
        conjugate = jnp.where(found.converged, conjugate, 0.0)
        return jnp.sum(potential.convex_value(x, 0.0) + conjugate) / (_BATCH * x.shape[1])

    def local(
        carry: Any, static: Any, ends: Any, rates: Array, of_rows: Array, of_draws: Array
    ) -> Any:
        def step(carry: Any, given: tuple[Array, Array, Array]) -> tuple[Any, None]:
            (params, state, points), (rate, of_x, of_y) = carry, given
            y = ends[1][of_y]
            found = invert_stage(eqx.combine(params, static), y, 0.0, points[of_y], loose=_LOOSE)
            gradient = total(jax.grad(dual)(params, ends[0][of_x], y, found))
            updates, state = _OPTIMISER.update(gradient, state)
            params = jax.tree.map(lambda a, update: a - rate * update, params, updates)
            return (params, state, points.at[of_y].set(found.points)), None

        params, state, points = jax.lax.scan(step, carry, (rates, of_rows, of_draws))[0]
        seen = jnp.zeros(len(points), points.dtype).at[of_draws.ravel()].set(1.0)
        moved, by = total((points - carry[2], seen))  # by so many devices
        return params, state, carry[2] + moved / jnp.maximum(by, 1.0)[:, None]

    return on_shards(local, mesh, (carry, static, ends, rates), picks, (1, 1))
