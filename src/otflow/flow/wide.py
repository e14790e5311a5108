"""Points of a density and points beyond it, with the weights that undo the choice.

What a trained flow gets wrong lies where few draws fall: at alpha = 1000, d = 2, half of J - J* is
at normal scores of 4 to 5.5, where one draw of 20,000 is. Three of four points here are draws, the
fourth is a draw moved away from the centre c, x = c + s (z - c). A point of either kind weighs

    w(x) = rho0(x) / (3/4 rho0(x) + 1/4 q(x)),   q(x) = rho0(c + (x - c) / s) / s^d,

which never exceeds 4/3 (defensive importance sampling, Hesterberg 1995). The Kullback-Leibler
divergence between q and rho0 hardly depends on d.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.special import expit

from otflow.data.batches import AbstractBatches
from otflow.data.rows import Rows
from otflow.reference.base import AbstractReference
from otflow.targets import AbstractTarget

_STRETCH = 2.2
OUTER = 4  # of so many points, one is moved outwards
_CENTRE_DRAWS = 4096


def stretch(dim: int) -> float:
    """s: how much farther from the centre outer points lie."""
    return math.sqrt(1 + _STRETCH / math.sqrt(dim))


class Wide(eqx.Module):
    """A density that is drawn from with weights of mean 1, far points more often."""

    density: AbstractTarget
    centre: Float[Array, " d"]

    @staticmethod
    def of(density: AbstractTarget) -> "Wide":
        """Around the density's mean, or that of some draws where it is not known."""
        moments = density.moments()
        if moments is not None:
            return Wide(density, jnp.asarray(moments.mean))
        return Wide(density, jnp.mean(density.sample(jax.random.key(0), _CENTRE_DRAWS), axis=0))

    def draw(self, key: PRNGKeyArray, n: int) -> Rows:
        """n weighted points; every fourth is an outer one, so that any part has some."""
        z, outer = self.density.sample(key, n), jnp.arange(n) % OUTER == 0
        return Rows(*_moved(z, outer, self.centre, self.density.log_prob, jnp, jax.nn.sigmoid))


class WideBatches(AbstractBatches):
    """Batches of a density's weighted points, never the same point twice."""

    def __init__(self, density: AbstractTarget, batch_size: int, key: PRNGKeyArray):
        self._wide, self._size, self._key, self._taken = Wide.of(density), batch_size, key, 0

    def take(self, n_batches: int) -> Rows:
        """The next batches."""
        numbers = jnp.arange(self._taken, self._taken + n_batches)
        self._taken += n_batches
        found: Rows = jax.device_get(_batches(self._wide, self._key, numbers, self._size))
        return found

    def skip(self, n_batches: int) -> None:
        """Pass over batches."""
        self._taken += n_batches


@eqx.filter_jit
def _batches(wide: Wide, key: PRNGKeyArray, numbers: Array, size: int) -> Rows:
    return jax.lax.map(lambda k: wide.draw(jax.random.fold_in(key, k), size), numbers)


def wide_points(
    exact: AbstractReference, scores: Float[np.ndarray, "n d"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
    """The points of rho0 at normal scores, the first quarter moved outwards, with weights; float64.

    An outer point beyond the support of rho0 has weight 0 and stands at the centre.
    """
    z, c = exact.from_scores(scores), exact.from_scores(np.zeros((1, exact.dim)))
    outer = np.arange(len(z)) < len(z) // OUTER
    x, weight = _moved(z, outer, c, exact.log_prob, np, expit)
    return np.where(weight[:, None] > 0, x, c), weight


def _moved(z: Any, outer: Any, c: Any, log_prob: Any, xp: Any, sigmoid: Any) -> tuple[Any, Any]:
    """The points, outer ones moved, and their weights; within NumPy or JAX, as xp and sigmoid."""
    d = z.shape[1]
    s = stretch(d)
    x = xp.where(outer[:, None], c + s * (z - c), z)
    log_ratio = log_prob(x) - (log_prob(c + (x - c) / s) - d * math.log(s))
    return x, OUTER / (OUTER - 1) * sigmoid(log_ratio + math.log(OUTER - 1))
