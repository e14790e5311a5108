"""The affine map between the data's own units and the space a flow is trained in."""

import equinox as eqx
import numpy as np
from jaxtyping import Float


class Standardizer(eqx.Module):
    """z = (x - mean) / scale, column by column, in float64."""

    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]

    @staticmethod
    def fit(
        x: Float[np.ndarray, "n d"], weight: Float[np.ndarray, " n"] | None = None
    ) -> "Standardizer":
        """Mean and standard deviation of every column, by weight."""
        if weight is None:
            return Standardizer(x.mean(axis=0), x.std(axis=0))
        mean = np.average(x, axis=0, weights=weight)
        return Standardizer(mean, np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight)))

    @staticmethod
    def identity(dim: int) -> "Standardizer":
        """z = x."""
        return Standardizer(np.zeros(dim), np.ones(dim))

    @property
    def log_det(self) -> float:
        """log|det dz/dx|, nats: add it to a log-density in z to get one in x."""
        return float(-np.log(self.scale).sum())

    def forward(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """From the data's units to the flow's space."""
        return (np.asarray(x, np.float64) - self.mean) / self.scale

    def inverse(self, z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """From the flow's space to the data's units."""
        return np.asarray(z, np.float64) * self.scale + self.mean
