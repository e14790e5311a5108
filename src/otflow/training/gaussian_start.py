"""The Gaussian nearest to a density known up to a constant, by natural gradients.

For y = m + L z, z ~ N(0, I), KL(N(m, LL') || exp(-E)/Z) is least where E[g] = 0 and E[g z'] = 0,
g = grad_z E(m + L z) - z. Both are Newton's residuals: of a Gaussian E, G = I + E[g z'] is the
Hessian in z, and one step m - L G^-1 E[g], L G^(-1/2) ends at the optimum, without noise there.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

_STEPS, _FULL = 300, 0.5  # steps; share of them that are not damped
_LEAST_DRAWS, _DRAWS_A_COLUMN = 256, 4  # pairs (z, -z)
_SHRINK, _GROW = 0.25, 2.0  # of a deviation, in one step
_FARTHEST = 10.0  # of the mean, in deviations, in one step


class GaussianStart(NamedTuple):
    """Mean and root of the covariance; how the last steps went.

    `drift` is the largest |log growth| of a deviation a step, averaged with its sign over the last
    steps, and `travel` the mean's move, in deviations; `lost` the share of draws there at which the
    log-density or its gradient is not finite.
    """

    mean: Float[np.ndarray, " d"]
    factor: Float[np.ndarray, "d d"]
    drift: float
    travel: float
    lost: float


def gaussian_start(
    log_density: Callable[[Array], Array],
    mean: Float[np.ndarray, " d"],
    factor: Float[np.ndarray, "d d"],
    seed: int,
    share: float = 1.0,
) -> GaussianStart:
    """From N(mean, factor factor') to the Gaussian of least KL; in JAX's default precision.

    Args:
        log_density: -E up to a constant, of points (n, d).
        mean, factor: where to start.
        seed: of the draws.
        share: of E: below 1 a flatter density, which reaches over gaps.
    """
    start = (jnp.asarray(mean, float), jnp.asarray(factor, float))
    (m, L), (growth, moves, lost) = _run(
        log_density, start, jnp.asarray(share, float), jax.random.key(seed)
    )
    last = slice(-_STEPS // 10, None)
    drift = np.asarray(growth)[last].mean(axis=0)
    return GaussianStart(
        np.asarray(m, np.float64),
        np.asarray(L, np.float64),
        float(drift[np.abs(drift).argmax()]),
        float(np.linalg.norm(np.asarray(moves)[last].mean(axis=0))),
        float(np.asarray(lost)[last].mean()),
    )


@eqx.filter_jit
def _run(
    log_density: Callable[[Array], Array],
    start: tuple[Array, Array],
    share: Array,
    key: PRNGKeyArray,
) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
    d = start[0].size
    pairs = max(_LEAST_DRAWS, _DRAWS_A_COLUMN * d)

    def step(carry: tuple[Array, Array], k: Array) -> tuple[tuple, tuple]:
        m, L = carry
        half = jax.random.normal(jax.random.fold_in(key, k), (pairs, d))
        z = jnp.concatenate([half, -half])
        pull = jax.vmap(jax.grad(lambda z: -share * log_density((m + L @ z)[None])[0]))
        g = pull(z) - z
        good = jnp.isfinite(g).all(axis=1)
        g = jnp.where(good[:, None], g, 0.0)
        slope, bend = g.mean(axis=0), g.T @ z / (2 * pairs)
        excess, basis = jnp.linalg.eigh(0.5 * (bend + bend.T))
        rate = 1 / (1 + jnp.maximum(k - _FULL * _STEPS, 0.0) / 5)
        stretch = jnp.clip(jnp.maximum(1 + excess, 1e-6) ** -0.5, _SHRINK, _GROW) ** rate
        move = -rate * basis @ (basis.T @ slope / (1 + jnp.maximum(excess, 0.0)))
        full = move / rate
        move = move * jnp.minimum(1.0, _FARTHEST / jnp.maximum(jnp.linalg.norm(move), 1e-30))
        growth = jnp.log(stretch[jnp.array([0, -1])]) / rate
        return (m + L @ move, (L @ basis * stretch) @ basis.T), (growth, full, 1 - good.mean())

    return jax.lax.scan(step, start, jnp.arange(_STEPS))
