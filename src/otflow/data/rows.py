"""Rows as training takes them: points with their weights and what they are conditioned on."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Rows(eqx.Module):
    """n points, with the weight of each and a row of the condition for each, where there are any.

    `weight` has mean 1 over the rows it was made for, so that a batch's mean of weight times cost
    estimates the weighted mean of all rows without bias.
    """

    x: Float[Array, "n d"]
    weight: Float[Array, " n"] | None = None
    condition: Float[Array, "n k"] | None = None

    @property
    def n(self) -> int:
        """How many."""
        return self.x.shape[0]

    def take(self, index: Any) -> "Rows":
        """The rows of that index or slice."""
        return jax.tree.map(lambda array: array[index], self)

    def mean(self, values: Float[Array, " n"]) -> Float[Array, ""]:
        """The average of weight times value over the rows."""
        return jnp.mean(self.weighted(values))

    def weighted(self, values: Float[Array, "n *m"]) -> Float[Array, "n *m"]:
        """The values, each times its row's weight."""
        if self.weight is None:
            return values
        return self.weight.reshape(-1, *(1,) * (values.ndim - 1)) * values

    def around(self) -> "Rows":
        """Points between and around a quarter of the rows: x_i + (x_j - x_k) / 2, under c_i.

        Held-out points fall there too; the map has to be invertible where no training row is. Of
        several batches, arrays (steps, n, ...), each has its own.
        """
        condition = None if self.condition is None else self.condition[..., ::4, :]
        return Rows(spread(self.x), condition=condition)


def as_rows(x: "Float[Array, 'n d'] | Rows") -> Rows:
    """Rows; a plain array is rows with neither weights nor condition."""
    return x if isinstance(x, Rows) else Rows(x)


def on_host(x: "Float[Array, 'n d'] | Rows") -> Rows:
    """Rows whose arrays are NumPy's, from which batches are taken without a device's memory."""
    return jax.tree.map(np.asarray, as_rows(x))


def spread(x: Float[Array, "*steps n d"]) -> Float[Array, "*steps k d"]:
    """x_i + (x_j - x_k) / 2 for every fourth row i, j and k the rows before it."""
    roll = np.roll if isinstance(x, np.ndarray) else jnp.roll
    half = x.dtype.type(0.5)
    return (x + half * (roll(x, 1, axis=-2) - roll(x, 2, axis=-2)))[..., ::4, :]
