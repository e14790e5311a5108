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

from otflow.flow.flow import Flow
from otflow.flow.objective import nll
from otflow.schemes import Conforming
from otflow.support.precision import dtype_of, precision
from otflow.support.statistics import Estimate, covariance

_DRAWS = 4096
_CENTRES = 512  # rows that carry a kernel
_KERNEL = 0.3  # deviation of a kernel, in those of the columns
_WIDER = 2.0  # deviation of the Gaussian around all rows, in theirs
_BACK = 1e-2  # distance, in deviations, within which a point is its image's preimage
ABOVE_ONE = 1.02  # more than rounding and the proposal's faults
BY_CONSTRUCTION = "1: every step is a bijection"
NOT_MEASURED = "not measured: `certify` on rows of the data measures it"
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
            f"the density integrates to {self}, not to 1: the map folds where no row lies, "
            f"log-densities are up to {math.log(self.mean):.2g} nats too high, and samples come "
            "from one side of each fold. The stages of potential='convex' cannot fold."
        )

    def __str__(self) -> str:
        text = f"{self.mean:.3g} +- {self.half:.2g}"
        return text if self.resolved else f"{text}, not resolved"


def may_fold(flow: Flow) -> bool:
    """Whether the map is not a bijection by construction, so that its integral must be measured."""
    return not (flow.potential.bijective and isinstance(flow.scheme, Conforming))


def told(flow: Flow, integral: Integral | None) -> str:
    """The integral in words."""
    if integral is None:
        return NOT_MEASURED if may_fold(flow) else BY_CONSTRUCTION
    return f"{integral} (1 for a density)"


def doubt(flow: Flow, integral: Integral | None) -> str | None:
    """What a user of the density must be warned of; None where it is one as far as is known."""
    if integral is None and may_fold(flow):
        return f"the map may fold, and the integral of its density was {NOT_MEASURED}."
    return integral.warning() if integral is not None and integral.above_one else None


def density_integral(
    flow: Flow,
    x: Float[np.ndarray, "n d"],
    seed: int = 0,
    draws: int = _DRAWS,
    condition: Float[np.ndarray, "n k"] | None = None,
) -> Integral:
    """The integral of a flow's density over R^d; of a conditional one, its mean over the rows'.

    Half of the draws are the flow's own samples, whose law is its density where a point is the
    inverse of its own image; the others come from the rows' law, widened: kernels at the rows, and
    a Gaussian of twice their deviation. Their mixture is the proposal.

    Args:
        flow: the flow.
        x: rows of the law it was trained on, in its space.
        seed: of the draws.
        draws: how many.
        condition: of the rows, where the flow takes one.
    """
    rng = np.random.default_rng(seed)
    half = draws // 2
    wide = _Wide.around(np.asarray(x, np.float64), rng)
    with precision(dtype_of(flow.potential)):
        drawn = wide.draw(half, rng)
        own, others = _conditions(condition, half, rng)
        here, there = (flow.target.given(c) for c in (own, others))
        y = here.sample(jax.random.key(seed), half)
        pulled = flow.pull(y, own)
        log_own = here.log_prob(y) - pulled.log_det
        pushed = flow.push(drawn, others)
        log_drawn = -nll(there, pushed)
        back = np.asarray(flow.inverse(pushed.points, others), np.float64)
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


def _conditions(
    condition: Float[np.ndarray, "n k"] | None, draws: int, rng: np.random.Generator
) -> tuple[Any, Any]:
    """Those of random rows, for the flow's samples and for the other draws."""
    if condition is None:
        return None, None
    first, second = rng.integers(len(condition), size=(2, draws))
    return condition[first], condition[second]


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
        cov = covariance(x, bias=True) + np.diag(1e-3 * scale**2)
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
