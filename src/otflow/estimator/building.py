"""From hyperparameters to the pieces of a flow: scheme, and the potential to start from."""

import warnings

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from otflow.potentials import (
    AbstractPotential,
    ConditionalGaussian,
    ConditionalResNet,
    ConditionalStages,
    ConvexStages,
    GaussianBase,
    ResNetPotential,
)
from otflow.schemes import RK4, AbstractScheme, Conforming
from otflow.schemes.base import check_steps
from otflow.support.extras import require
from otflow.support.statistics import covariance
from otflow.targets import AbstractTarget, StandardNormal

SCHEMES = {"conforming": Conforming, "rk4": RK4}
BASES = ("gaussian", None)
_ICA_ROWS = 20_000  # of them the directions are found
_EIGENVALUE_FLOOR = 1e-3  # of the mean eigenvalue of the covariance, for the Gaussian base


def make_scheme(name: str, n_steps: int | None) -> AbstractScheme:
    """The scheme of that name; n_steps None is its default, 4 for conforming and 8 for rk4.

    Raises:
        ValueError, TypeError: an unknown name, or n_steps that is no integer >= 1.
    """
    if name not in SCHEMES:
        raise ValueError(f"scheme: expected one of {tuple(SCHEMES)}; got {name!r}.")
    if n_steps is None:
        return SCHEMES[name]()
    check_steps(n_steps)
    return SCHEMES[name](n_steps=int(n_steps))


def starting_potential(
    x: Float[np.ndarray, "n d"],
    target: AbstractTarget,
    alpha: float,
    width: int,
    depth: int,
    base: str | None,
    key: PRNGKeyArray,
    condition: Float[np.ndarray, "n k"] | None = None,
    weight: Float[np.ndarray, " n"] | None = None,
    aligned: bool = False,
    n_stages: int | None = None,
) -> AbstractPotential:
    """The Gaussian solution between the moments of rows and target, and a silent network (2.1).

    With a condition the mean is the least-squares regression of the rows on it, and the covariance
    that of the residuals. Without a base, or where the target's moments are not known, a random
    network. Aligned ridges (depth 0) start along the directions in which the rows are least
    Gaussian.

    With `n_stages` the potential is one of so many convex stages (SPEC 2.2), which start as those
    of the Gaussian solution, or at the identity where there is none.
    """
    dim = x.shape[1]
    end = None if base is None else _end(target)
    if n_stages is not None:
        solution = (
            _rest(dim, 0 if condition is None else condition.shape[1])
            if end is None
            else _solution(x, end, alpha, condition, weight, target.slope)
        )
        if isinstance(solution, ConditionalGaussian):
            return ConditionalStages.create(solution, n_stages, width, key)
        return ConvexStages.create(solution, n_stages, width, key)
    silent = end is not None
    sizes, scale = (width, depth, key), 0.0 if silent else 1.0
    network: AbstractPotential
    if condition is None:
        found = least_gaussian_directions(x) if aligned and depth == 0 else None
        network = ResNetPotential.create(dim, *sizes, output_scale=scale, directions=found)
    else:
        network = ConditionalResNet.create(dim, condition.shape[1], *sizes, output_scale=scale)
    if end is None:
        return network
    return _solution(x, end, alpha, condition, weight, target.slope) + network


_End = tuple[np.ndarray | None, np.ndarray | None]


def _solution(
    x: Float[np.ndarray, "n d"],
    end: _End,
    alpha: float,
    condition: Float[np.ndarray, "n k"] | None,
    weight: Float[np.ndarray, " n"] | None,
    slope: Float[np.ndarray, "d k"] | None,
) -> GaussianBase | ConditionalGaussian:
    """The Gaussian solution between the moments of the rows and `end`, which moves by `slope`."""
    if condition is None:
        mean = np.average(x, axis=0, weights=weight)
        cov = _floored(covariance(x, bias=True, aweights=weight))
        return GaussianBase.solve(mean, cov, float(alpha), *end)
    mean, W = regression(x, condition, weight)
    cov = _floored(covariance(x - condition @ W.T, bias=True, aweights=weight))
    return ConditionalGaussian.solve(mean, W, cov, float(alpha), *end, slope)


def _rest(dim: int, condition_dim: int) -> GaussianBase | ConditionalGaussian:
    """The solution between N(0, I) and itself: nothing moves."""
    mean, cov = np.zeros(dim), np.eye(dim)
    if not condition_dim:
        return GaussianBase.solve(mean, cov, 1.0)
    return ConditionalGaussian.solve(mean, np.zeros((dim, condition_dim)), cov, 1.0)


def _end(target: AbstractTarget) -> _End | None:
    """Mean and covariance that the Gaussian base ends at; Nones for N(0, I), None if not known."""
    if isinstance(target, StandardNormal):
        return None, None
    return target.moments()


def least_gaussian_directions(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "d d"] | None:
    """Unit vectors along which the rows are least Gaussian, by FastICA; None if there are none.

    Training moves ridges slowly across many dimensions. Measured on densities with independent
    components (docs/benchmarks.md) this start ends much nearer to J*_alpha; on real columns, which
    have none, farther from it than random directions do.
    """
    x = x[:_ICA_ROWS]
    variance = np.linalg.eigvalsh(covariance(x, bias=True))
    if x.shape[1] == 1 or variance[0] <= 1e-9 * variance[-1]:  # dependent columns
        return None
    decomposition = require("sklearn.decomposition", "sklearn")
    ica = decomposition.FastICA(whiten="unit-variance", random_state=0, max_iter=200, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # directions that have not converged are a start too
        found = ica.fit(x).components_
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def regression(
    x: Float[np.ndarray, "n d"],
    condition: Float[np.ndarray, "n k"],
    weight: Float[np.ndarray, " n"] | None = None,
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d k"]]:
    """mean and W of the least-squares fit x ~ mean + W c, W of smallest norm."""
    root = np.ones(len(x)) if weight is None else np.sqrt(weight)
    x_mean, c_mean = (np.average(a, axis=0, weights=weight) for a in (x, condition))
    centred = (root[:, None] * (a - m) for a, m in ((condition, c_mean), (x, x_mean)))
    W = np.linalg.lstsq(*centred)[0].T
    return x_mean - W @ c_mean, W


def _floored(cov: np.ndarray) -> np.ndarray:
    """The covariance with its eigenvalues raised to a floor, with a warning where that matters."""
    variance, basis = np.linalg.eigh(cov)
    floor = _EIGENVALUE_FLOOR * variance.mean()
    if variance[0] >= floor:
        return cov
    warnings.warn(
        f"{int((variance < floor).sum())} of {variance.size} principal variances lie below "
        f"{floor:.2g} and were raised to it in the Gaussian base: columns are (nearly) dependent, "
        "or there are few rows. Drop such columns or train on principal components.",
        UserWarning,
        stacklevel=4,
    )
    return (basis * np.maximum(variance, floor)) @ basis.T
