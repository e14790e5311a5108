"""Points of a density and points beyond it, with the weights that undo the choice.

What a trained flow gets wrong lies where few draws fall: at alpha = 1000, d = 2, half of J - J* is
at normal scores of 4 to 5.5, where one draw of 20,000 is. Half of the points here are draws, half
are draws moved away from the centre c, x = c + s (z - c). A point of either kind weighs

    w(x) = 2 rho0(x) / (rho0(x) + q(x)),   q(x) = rho0(c + (x - c) / s) / s^d,

which never exceeds 2 (defensive importance sampling, Hesterberg 1995). The Kullback-Leibler
divergence between the two halves hardly depends on d.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.special import expit

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
        z, c, s = self.density.sample(key, n), self.centre, stretch(self.density.dim)
        outer = jnp.arange(n)[:, None] % OUTER == 0
        x = jnp.where(outer, c + s * (z - c), z)
        inner = self.density.log_prob(c + (x - c) / s) - self.density.dim * math.log(s)
        return Rows(x, _weight(self.density.log_prob(x) - inner, jax.nn.sigmoid))


def wide_points(
    exact: AbstractReference, scores: Float[np.ndarray, "n d"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
    """The points of rho0 at normal scores, the first quarter moved outwards, with weights; float64.

    An outer point beyond the support of rho0 has weight 0 and stands at the centre.
    """
    z, d = exact.from_scores(scores), exact.dim
    s, c = stretch(d), exact.from_scores(np.zeros((1, d)))
    outer = np.arange(len(z))[:, None] < len(z) // OUTER
    x = np.where(outer, c + s * (z - c), z)
    inner = exact.log_prob(c + (x - c) / s) - d * math.log(s)
    weight = _weight(exact.log_prob(x) - inner, expit)
    return np.where(weight[:, None] > 0, x, c), weight


def _weight(log_ratio: Any, sigmoid: Any) -> Any:
    """w of log rho0 / q."""
    return OUTER / (OUTER - 1) * sigmoid(log_ratio + math.log(OUTER - 1))
