"""What a potential is: a scalar field Phi(x, t) whose velocity is -grad_x Phi."""

import abc
import functools
import operator
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from otflow.potentials.packed import dense

Points = Float[Array, "n d"]
Times = Float[Array, ""] | Float[Array, " n"] | float


class GradientLaplacian(eqx.Module):
    """Gradient in (x, t) and Laplacian in x of a potential, at n points."""

    gradient: Float[Array, "n d+1"]
    laplacian: Float[Array, " n"]


class GradientHessian(eqx.Module):
    """Gradient in (x, t) and Hessian in x of a potential, at n points."""

    gradient: Float[Array, "n d+1"]
    hessian: Float[Array, "n d d"]


class EulerStep(eqx.Module):
    """Where a step takes n points, and its symmetric Jacobian there, packed (`packed`)."""

    points: Float[Array, "n d"]
    jacobian: Float[Array, "t n"]


class AbstractPotential(eqx.Module):
    """A potential Phi: R^d x [0, 1] -> R, evaluated at n points at once (SPEC 1 and 2).

    Every method takes x of shape (n, d) and t, a scalar or of shape (n,). The last column of a
    gradient is d Phi / dt. `trainable` says whether an optimiser may move the arrays inside.
    """

    trainable: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """d, the dimension of x."""

    @property
    def n_steps(self) -> int | None:
        """K where the potential is defined at the times 0, 1/K, ..., (K-1)/K only; None: at all."""
        return None

    @property
    def bijective(self) -> bool:
        """Whether it is K Euler steps, each a diffeomorphism whatever the parameters."""
        return self.n_steps is not None

    @property
    def floats_per_point(self) -> int:
        """Numbers in the largest array that a Hessian needs a point; by default those of itself."""
        return self.dim**2

    @property
    def condition_dim(self) -> int:
        """k, columns of the condition; 0 for a potential that takes none."""
        return 0

    def given(
        self, condition: Float[Array, "n k"] | Float[Array, " k"] | None
    ) -> "AbstractPotential":
        """The potential under a condition: one row for each of n points, or one for all points.

        Raises:
            ValueError: a condition where none is taken, none where one is, or another shape.
        """
        if condition is not None:
            raise ValueError(
                f"condition: expected none, the potential takes none; got shape {condition.shape}."
            )
        return self

    @abc.abstractmethod
    def value(self, x: Points, t: Times) -> Float[Array, " n"]:
        """Phi(x, t)."""

    @abc.abstractmethod
    def gradient(self, x: Points, t: Times) -> Float[Array, "n d+1"]:
        """(grad_x Phi, d_t Phi)."""

    @abc.abstractmethod
    def gradient_and_laplacian(self, x: Points, t: Times) -> GradientLaplacian:
        """Gradient and Laplacian, sharing the forward pass; the Hessian is not formed."""

    @abc.abstractmethod
    def gradient_and_hessian(self, x: Points, t: Times) -> GradientHessian:
        """Gradient and full Hessian in x, sharing the forward pass."""

    def laplacian(self, x: Points, t: Times) -> Float[Array, " n"]:
        """Trace of the Hessian in x."""
        return self.gradient_and_laplacian(x, t).laplacian

    def hessian(self, x: Points, t: Times) -> Float[Array, "n d d"]:
        """Hessian in x."""
        return self.gradient_and_hessian(x, t).hessian

    def __add__(self, other: "AbstractPotential") -> "AbstractPotential":
        if not isinstance(other, AbstractPotential):
            return NotImplemented
        return SumPotential((self, other))


class SumPotential(AbstractPotential):
    """Phi = sum of the terms; every derivative is the sum of theirs."""

    terms: tuple[AbstractPotential, ...]

    def __check_init__(self) -> None:
        dims = {term.dim for term in self.terms}
        if len(dims) != 1:
            raise ValueError(f"terms: expected at least one, all of one dim; got dims {dims}.")
        widths = {term.condition_dim for term in self.terms} - {0}
        if len(widths) > 1:
            raise ValueError(f"terms: expected conditions of one width; got widths {widths}.")

    @property
    def dim(self) -> int:
        """d, common to all terms."""
        return self.terms[0].dim

    @property
    def condition_dim(self) -> int:
        """k, columns of the condition; 0 where no term takes one."""
        return max(term.condition_dim for term in self.terms)

    def given(
        self, condition: Float[Array, "n k"] | Float[Array, " k"] | None
    ) -> AbstractPotential:
        """The sum under a condition; terms that take none are left as they are."""
        if not self.condition_dim:
            return super().given(condition)
        bound = [t.given(condition) if t.condition_dim else t for t in self.terms]
        return SumPotential(tuple(bound))

    @property
    def floats_per_point(self) -> int:
        """The most of the terms'."""
        return max(term.floats_per_point for term in self.terms)

    def value(self, x: Points, t: Times) -> Float[Array, " n"]:
        """Phi(x, t), shape (n,)."""
        return _summed([term.value(x, t) for term in self.terms])

    def gradient(self, x: Points, t: Times) -> Float[Array, "n d+1"]:
        """(grad_x Phi, d_t Phi), shape (n, d+1)."""
        return _summed([term.gradient(x, t) for term in self.terms])

    def gradient_and_laplacian(self, x: Points, t: Times) -> GradientLaplacian:
        """Gradient (n, d+1) and Laplacian (n,)."""
        parts = [term.gradient_and_laplacian(x, t) for term in self.terms]
        return GradientLaplacian(
            _summed([p.gradient for p in parts]), _summed([p.laplacian for p in parts])
        )

    def gradient_and_hessian(self, x: Points, t: Times) -> GradientHessian:
        """Gradient (n, d+1) and Hessian (n, d, d)."""
        parts = [term.gradient_and_hessian(x, t) for term in self.terms]
        return GradientHessian(
            _summed([p.gradient for p in parts]), _summed([p.hessian for p in parts])
        )


def _summed(parts: list[Array]) -> Array:
    return functools.reduce(operator.add, parts)


class AbstractStages(AbstractPotential):
    """A potential of K Euler steps, each a diffeomorphism of R^d whatever the parameters.

    There is no Phi but at the K times, scalars; the last column of a gradient is 0.
    """

    @property
    @abc.abstractmethod
    def n_steps(self) -> int:
        """K."""

    @abc.abstractmethod
    def image(self, x: Points, t: Times) -> Float[Array, "n d"]:
        """Where the step at time t takes n points."""

    @abc.abstractmethod
    def step(self, x: Points, t: Times) -> EulerStep:
        """The image, and the step's Jacobian."""

    @abc.abstractmethod
    def convex_value(self, x: Points, t: Times) -> Float[Array, " n"]:
        """u_k(x), whose gradient is the image."""

    @abc.abstractmethod
    def of_points(self, index: Int[Array, " k"]) -> "AbstractStages":
        """The stages of some of the points, where a condition gives every point its own."""

    def value(self, x: Points, t: Times) -> Float[Array, " n"]:
        """Phi(x, t) = (|x|^2 / 2 - u_k(x)) K with k the stage of t, a scalar."""
        x = check_points(x, self.dim)
        return self.n_steps * (0.5 * jnp.sum(x * x, axis=1) - self.convex_value(x, t))

    def gradient(self, x: Points, t: Times) -> Float[Array, "n d+1"]:
        """(grad_x Phi, 0)."""
        return self._with_rate(x - self.image(x, t))

    def gradient_and_laplacian(self, x: Points, t: Times) -> GradientLaplacian:
        """Gradient (n, d+1) and Laplacian (n,)."""
        found = self.gradient_and_hessian(x, t)
        return GradientLaplacian(found.gradient, jnp.trace(found.hessian, axis1=1, axis2=2))

    def gradient_and_hessian(self, x: Points, t: Times) -> GradientHessian:
        """Gradient (n, d+1) and Hessian (n, d, d)."""
        found = self.step(x, t)
        hessian = self.n_steps * (jnp.eye(self.dim, dtype=x.dtype) - dense(found.jacobian))
        return GradientHessian(self._with_rate(x - found.points), hessian)

    def _with_rate(self, moved: Float[Array, "n d"]) -> Float[Array, "n d+1"]:
        return self.n_steps * jnp.pad(moved, ((0, 0), (0, 1)))


_CACHED = 2**16  # numbers in the largest intermediate array of a chunk on a CPU
_FILLED = 2**26  # and on an accelerator


def chunk_size(potential: AbstractPotential) -> int:
    """Points at once: those whose intermediate arrays stay in a CPU's cache, or fill a GPU.

    On a CPU 64 to 256: more were measured slower.
    """
    if jax.default_backend() != "cpu":
        return max(_FILLED // potential.floats_per_point, 64)
    return min(max(_CACHED // potential.floats_per_point, 64), 256)


def join_time(x: Points, t: Times, dim: int) -> Float[Array, "n d+1"]:
    """s = (x, t), after checking the shapes.

    Raises:
        ValueError: x is not (n, dim) or t neither a scalar nor (n,).
    """
    x = check_points(x, dim)
    t = jnp.asarray(t, x.dtype)
    if t.ndim > 1 or (t.ndim == 1 and t.shape[0] != x.shape[0]):
        raise ValueError(f"t: expected a scalar or shape ({x.shape[0]},); got shape {t.shape}.")
    t = jnp.broadcast_to(t, x.shape[:1])
    return jnp.concatenate([x, t[:, None]], axis=1)


def check_points(x: Points, dim: int, name: str = "x") -> Points:
    """x as an inexact JAX array of shape (n, dim).

    Raises:
        ValueError: the shape differs.
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        x = x.astype(float)
    if x.ndim != 2 or x.shape[1] != dim:
        raise ValueError(f"{name}: expected shape (n, {dim}); got {x.shape}.")
    return x
