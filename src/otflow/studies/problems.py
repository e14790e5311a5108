"""What a study runs on: a density with an exact reference, or the user's own rows."""

import abc
import functools
from typing import Any

import numpy as np
from jaxtyping import Float

from otflow.reference import STANDARD_MIXTURE, gaussian, product_mixture
from otflow.reference.base import AbstractReference
from otflow.reference.one_dimensional import mixture_1d
from otflow.support.checks import check_count
from otflow.support.precision import precision
from otflow.support.statistics import covariance
from otflow.targets import AbstractTarget, GaussianMixture, RotatedProduct


class AbstractProblem(abc.ABC):
    """A data density for studies, in float64.

    `density` is None for data; `population` rows stand for it then.
    """

    name: str
    dim: int

    @property
    @abc.abstractmethod
    def density(self) -> AbstractTarget | None:
        """rho0 where it can be sampled and evaluated."""

    @abc.abstractmethod
    def reference(self, alpha: float) -> AbstractReference | None:
        """The exact answer at alpha (math.inf for optimal transport), None where unknown."""

    @abc.abstractmethod
    def moments(self) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
        """Mean and covariance of rho0, for the Gaussian base."""

    def settings(self) -> dict[str, Any]:
        """What identifies the problem in a store."""
        return {"problem": self.name, "dim": self.dim}


class ExactProblem(AbstractProblem):
    """A density whose finite-penalty problem is solved exactly (SPEC 4).

    Args:
        name: of the family, as in `make_problem`.
        reference: alpha -> the exact answer.
        density: makes rho0, called in float64.
        mean, cov: moments of rho0.
    """

    def __init__(self, name: str, reference: Any, density: Any, mean: Any, cov: Any):
        self.name = name
        self._reference = functools.lru_cache(maxsize=64)(reference)
        with precision("float64"):
            self._density: AbstractTarget = density()
        self._moments = (np.asarray(mean, float), np.asarray(cov, float))
        self.dim = self._density.dim

    @property
    def density(self) -> AbstractTarget:
        """rho0."""
        return self._density

    def __getstate__(self) -> dict[str, Any]:
        """For pickles: the answers that are kept stay behind."""
        return self.__dict__ | {"_reference": self._reference.__wrapped__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reference = functools.lru_cache(maxsize=64)(state["_reference"])

    def reference(self, alpha: float) -> AbstractReference:
        """The exact answer at alpha, kept for the next call."""
        return self._reference(float(alpha))

    def moments(self) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
        """Mean and covariance of rho0."""
        return self._moments


def check_exact(problem: object) -> None:
    """Raise TypeError unless the exact answers of a problem are known."""
    if not isinstance(problem, ExactProblem):
        raise TypeError(f"problem: expected an ExactProblem; got {type(problem).__name__}.")


class DataProblem(AbstractProblem):
    """The user's own rows, one part to train on and one that stands for the population.

    Args:
        X: (n, d) finite numbers, n >= 8, in the space to train in (scale the columns first).
        holdout: share of the rows that is the population.
        seed: of the split.

    Raises:
        ValueError: shape, size or numbers that are not finite.
    """

    name = "data"

    def __init__(self, X: Float[np.ndarray, "n d"], holdout: float = 0.3, seed: int = 0):
        X = np.asarray(X, float)
        if X.ndim != 2 or len(X) < 8:
            raise ValueError(f"X: expected shape (n, d) with n >= 8; got {X.shape}.")
        if not np.isfinite(X).all():
            raise ValueError("X: expected finite numbers; got NaN or infinity.")
        if not 0 < holdout < 1:
            raise ValueError(f"holdout: expected a number in (0, 1); got {holdout}.")
        rows = np.random.default_rng(seed).permutation(len(X))
        cut = min(max(2, round(holdout * len(X))), len(X) - 2)  # both parts have a spread
        self.population, self.rows = X[rows[:cut]], X[rows[cut:]]
        self.dim = X.shape[1]
        # a fingerprint, so that a store made for other rows is not continued with these
        self._print = float(np.abs(X).sum()), float((X * np.arange(1, len(X) + 1)[:, None]).sum())

    @property
    def density(self) -> None:
        """Unknown."""
        return None

    def reference(self, alpha: float) -> None:
        """Unknown."""
        return None

    def moments(self) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
        """Mean and covariance of the training rows."""
        cov = covariance(self.rows, bias=True)
        return self.rows.mean(axis=0), cov

    def settings(self) -> dict[str, Any]:
        """With the size and a fingerprint of the rows."""
        n = len(self.rows) + len(self.population)
        return {**super().settings(), "rows": n, "fingerprint": list(self._print)}


PROBLEMS = ("gaussian", "mixture", "product")


def make_problem(name: str, dim: int = 2) -> ExactProblem:
    """A standard problem to N(0, I).

    Args:
        name: "gaussian": mean 0.5, axis-aligned standard deviations from 0.5 to 2. "mixture": the
            one-dimensional 0.4 N(-2, 0.5^2) + 0.6 N(1.5, 0.7^2). "product": the rotated product of
            dim copies of it.
        dim: d; 1 for "mixture".

    Raises:
        ValueError, TypeError: unknown name, dim out of range.
    """
    check_count("dim", dim)
    if name == "gaussian":
        mean, stds = np.full(dim, 0.5), np.geomspace(0.5, 2.0, dim)
        cov = np.diag(stds**2)
        return ExactProblem(
            name,
            lambda alpha: gaussian(mean, cov, alpha),
            lambda: GaussianMixture(np.ones(1), mean[None], cov[None]),
            mean,
            cov,
        )
    if name not in PROBLEMS:
        raise ValueError(f"name: expected one of {PROBLEMS}; got {name!r}.")
    if name == "mixture" and dim != 1:
        raise ValueError(f"dim: expected 1 for the problem 'mixture'; got {dim}.")
    weights, means, stds = (np.array(v) for v in _mixture_parameters())
    mean = weights @ means
    variance = weights @ (stds**2 + means**2) - mean**2
    if name == "mixture":
        rotation = np.eye(1)
        reference: Any = functools.partial(_mixture, weights, means, stds)
    else:
        rotation = product_mixture(dim, 1.0).rotation
        reference = functools.partial(product_mixture, dim)
    rows = np.stack([np.tile(v, (dim, 1)) for v in (weights, means, stds)])
    return ExactProblem(
        name,
        reference,
        lambda: RotatedProduct(rows[0], rows[1], rows[2], rotation),
        rotation @ np.full(dim, mean),
        variance * np.eye(dim),
    )


def _mixture_parameters() -> tuple[tuple[float, ...], ...]:
    return STANDARD_MIXTURE.weights, STANDARD_MIXTURE.means, STANDARD_MIXTURE.stds


def _mixture(weights: Any, means: Any, stds: Any, alpha: float) -> AbstractReference:
    return mixture_1d(weights, means, stds, alpha)
