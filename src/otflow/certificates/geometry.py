"""Straightness, monotonicity and the log-determinant of a map, checked from outside the flow."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class JacobianFacts(NamedTuple):
    """What the Jacobians of a map say, one entry a row.

    smallest: least eigenvalue of the symmetric part; positive for a strictly monotone map.
    asymmetry: |J - J'| / |J + J'| (Frobenius); zero for the gradient of a function.
    log_det: log |det J|, nats.
    """

    smallest: Float[np.ndarray, " n"]
    asymmetry: Float[np.ndarray, " n"]
    log_det: Float[np.ndarray, " n"]

    @property
    def rms_asymmetry(self) -> float:
        """Root mean square of `asymmetry`."""
        return float(np.sqrt(np.mean(self.asymmetry**2)))


def jacobian_facts(J: Float[np.ndarray, "n d d"]) -> JacobianFacts:
    """Eigenvalues, asymmetry and log-determinants of n matrices, shape (n, d, d)."""
    transposed = np.swapaxes(J, 1, 2)
    smallest = np.linalg.eigvalsh(0.5 * (J + transposed))[:, 0]
    norms = [np.linalg.norm(part, axis=(1, 2)) for part in (J - transposed, J + transposed)]
    asymmetry = norms[0] / np.maximum(norms[1], np.finfo(float).tiny)
    return JacobianFacts(smallest, asymmetry, np.linalg.slogdet(J).logabsdet)


def bending_directions(J: Float[np.ndarray, "n d d"]) -> Float[np.ndarray, "k d"]:
    """Eigenvectors of the symmetric parts as rows: where a ridge of u is worth having."""
    _, vectors = np.linalg.eigh(0.5 * (J + np.swapaxes(J, 1, 2)))
    return np.swapaxes(vectors, 1, 2).reshape(-1, J.shape[1])


def monotonicity_violations(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"]) -> int:
    """How many of the n // 2 disjoint pairs (2i, 2i + 1) have <y - y', x - x'> < 0.

    The gradient of a convex function has none: one violation beyond rounding proves that the map is
    not optimal. Pairs share no row, so their count is binomial.
    """
    m = len(x) // 2
    dx, dy = (v[0 : 2 * m : 2] - v[1 : 2 * m : 2] for v in (x, y))
    size = np.linalg.norm(dx, axis=1) * np.linalg.norm(dy, axis=1)
    return int(np.sum(np.sum(dx * dy, axis=1) < -1e-10 * size))
