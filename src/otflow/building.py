"""From hyperparameters to the pieces of a flow: scheme, and the potential to start from."""

import warnings

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from otflow.potentials import AbstractPotential, GaussianBase, ResNetPotential
from otflow.schemes import RK4, AbstractScheme, Conforming
from otflow.schemes.base import check_steps
from otflow.targets import AbstractTarget, StandardNormal

SCHEMES = {"conforming": Conforming, "rk4": RK4}
DEFAULT_STEPS = {"conforming": 4, "rk4": 8}
BASES = ("gaussian", None)
_EIGENVALUE_FLOOR = 1e-3  # of the mean eigenvalue of the covariance, for the Gaussian base


def make_scheme(name: str, n_steps: int | None) -> AbstractScheme:
    """The scheme of that name; n_steps None is its default, 4 for conforming and 8 for rk4.

    Raises:
        ValueError, TypeError: an unknown name, or n_steps that is no integer >= 1.
    """
    if name not in SCHEMES:
        raise ValueError(f"scheme: expected one of {tuple(SCHEMES)}; got {name!r}.")
    if n_steps is None:
        n_steps = DEFAULT_STEPS[name]
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
) -> AbstractPotential:
    """The Gaussian solution for the rows' mean and covariance plus a silent network (SPEC 2.1).

    Without a base, or where the target is not the standard normal, a random network.
    """
    dim = x.shape[1]
    if base is None or not isinstance(target, StandardNormal):
        return ResNetPotential.create(dim, width, depth, key)
    network = ResNetPotential.create(dim, width, depth, key, output_scale=0.0)
    cov = np.cov(x, rowvar=False, bias=True).reshape(dim, dim)
    return GaussianBase.solve(x.mean(axis=0), _floored(cov), float(alpha)) + network


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
