"""Does a flow's density integrate to one? Importance sampling over the whole space (SPEC 3).

Convex stages are bijections and their density integrates to one by construction. A free potential
may fold where no row lies; each fold counts mass twice.
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from otflow.flow.evaluation import Estimate
from otflow.flow.flow import Flow
from otflow.flow.objective import nll
from otflow.support.precision import dtype_of, precision

_DRAWS = 4096
_CENTRES = 512  # rows that carry a kernel
_KERNEL = 0.3  # deviation of a kernel, in those of the columns
_WIDER = 2.0  # deviation of the Gaussian around all rows, in theirs
_BACK = 1e-2  # distance, in deviations, within which a point is its image's preimage
ABOVE_ONE = 1.02  # more than rounding and the proposal's faults
_RESOLVED = 0.2  # standard error up to which the estimate says something


@dataclasses.dataclass(frozen=True)
class Integral(Estimate):
    """The integral of a density, estimated."""

    @staticmethod
    def kept(training: dict[str, Any]) -> "Integral | None":
        """That of a model file's training, None where it was not measured."""
        found = training.get("integral")
        return None if found is None else Integral(*map(float, found))

    @property
    def resolved(self) -> bool:
        """Whether the sampling says anything: in many dimensions it may not."""
        return self.standard_error <= _RESOLVED

    @property
    def above_one(self) -> bool:
        """More than one beyond doubt and rounding: four standard errors."""
        return self.resolved and self.mean - 4 * self.standard_error > ABOVE_ONE

    def warning(self) -> str:
        """What a user should know of a density that is none."""
        return (
            f"the density integrates to {self}, not to 1: the map folds where no row lies, and "
            f"log-densities are up to {math.log(self.mean):.2g} nats too high. The stages of "
            "potential='convex' cannot fold."
        )

    def __str__(self) -> str:
        text = f"{self.mean:.3g} +- {1.96 * self.standard_error:.2g}"
        return text if self.resolved else f"{text}, not resolved"


def density_integral(
    flow: Flow, x: Float[np.ndarray, "n d"], seed: int = 0, draws: int = _DRAWS
) -> Integral:
    """The integral of an unconditional flow's density over R^d.

    Half of the draws are the flow's own samples, whose law is its density where a point is the
    inverse of its own image; the others come from the rows' law, widened: kernels at the rows, and
    a Gaussian of twice their deviation. Their mixture is the proposal.

    Args:
        flow: the flow.
        x: rows of the law it was trained on, in its space.
        seed: of the draws.
        draws: how many.
    """
    rng = np.random.default_rng(seed)
    half = draws // 2
    wide = _Wide.around(np.asarray(x, np.float64), rng)
    with precision(dtype_of(flow.potential)):
        y = flow.target.sample(jax.random.key(seed), half)
        pulled = flow.pull(y)
        log_own = flow.target.log_prob(y) - pulled.log_det
        drawn = wide.draw(half, rng)
        pushed = flow.push(drawn)
        log_drawn = -nll(flow.target, pushed)
        back = np.asarray(flow.inverse(pushed.points), np.float64)
    found = np.asarray(pulled.valid) & np.isfinite(np.asarray(pulled.points)).all(axis=1)
    returns = np.abs((back - drawn) / wide.scale).max(axis=1) < _BACK
    points = np.concatenate([np.asarray(pulled.points, np.float64)[found], drawn])
    log_p = np.concatenate([np.asarray(log_own)[found], np.asarray(log_drawn)]).astype(float)
    log_own = np.where(np.r_[np.ones(found.sum(), bool), returns], log_p, -np.inf)
    # samples that were not found are missing from their law and from their share alike
    log_q = np.logaddexp(log_own, wide.log_density(points)) + math.log(half / len(points))
    weights = np.exp(np.where(np.isneginf(log_p), -np.inf, log_p - log_q))
    error = float(weights.std() / math.sqrt(len(weights)))
    return Integral(float(weights.mean()), error if math.isfinite(error) else math.inf)


@dataclasses.dataclass(frozen=True, eq=False)
class _Wide:
    """Kernels at rows and one Gaussian around all of them, half of the mass each."""

    centres: Float[np.ndarray, "k d"]
    scale: Float[np.ndarray, " d"]
    mean: Float[np.ndarray, " d"]
    root: Float[np.ndarray, "d d"]

    @staticmethod
    def around(x: Float[np.ndarray, "n d"], rng: np.random.Generator) -> "_Wide":
        chosen = x[rng.integers(len(x), size=_CENTRES)]
        scale = np.maximum(x.std(axis=0), 1e-3)
        cov = np.atleast_2d(np.cov(x, rowvar=False, bias=True)) + np.diag(1e-3 * scale**2)
        return _Wide(chosen, scale, x.mean(axis=0), _WIDER * np.linalg.cholesky(cov))

    def draw(self, n: int, rng: np.random.Generator) -> Float[np.ndarray, "n d"]:
        noise = rng.standard_normal((n, len(self.mean)))
        near = self.centres[rng.integers(len(self.centres), size=n)] + _KERNEL * self.scale * noise
        return np.where(rng.random(n)[:, None] < 0.5, near, self.mean + noise @ self.root.T)

    def log_density(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        d = len(self.mean)
        z = x / (_KERNEL * self.scale)
        c = self.centres / (_KERNEL * self.scale)
        squared = (z**2).sum(1)[:, None] - 2 * z @ c.T + (c**2).sum(1)
        kernels = logsumexp(-0.5 * np.maximum(squared, 0), axis=1) - math.log(len(c))
        kernels -= np.log(_KERNEL * self.scale).sum()
        r = np.linalg.solve(self.root, (x - self.mean).T)
        gaussian = -0.5 * (r**2).sum(axis=0) - np.log(np.diag(self.root)).sum()
        return np.logaddexp(kernels, gaussian) + math.log(0.5) - 0.5 * d * math.log(2 * math.pi)
