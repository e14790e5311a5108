"""Sums of potentials: a base plus a correction."""

import functools
import operator

from jaxtyping import Array, Float

from otflow.potentials.base import (
    AbstractPotential,
    GradientHessian,
    GradientLaplacian,
    Points,
    Times,
)


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
        return _total([term.value(x, t) for term in self.terms])

    def gradient(self, x: Points, t: Times) -> Float[Array, "n d+1"]:
        """(grad_x Phi, d_t Phi), shape (n, d+1)."""
        return _total([term.gradient(x, t) for term in self.terms])

    def gradient_and_laplacian(self, x: Points, t: Times) -> GradientLaplacian:
        """Gradient (n, d+1) and Laplacian (n,)."""
        parts = [term.gradient_and_laplacian(x, t) for term in self.terms]
        return GradientLaplacian(
            _total([p.gradient for p in parts]), _total([p.laplacian for p in parts])
        )

    def gradient_and_hessian(self, x: Points, t: Times) -> GradientHessian:
        """Gradient (n, d+1) and Hessian (n, d, d)."""
        parts = [term.gradient_and_hessian(x, t) for term in self.terms]
        return GradientHessian(
            _total([p.gradient for p in parts]), _total([p.hessian for p in parts])
        )


def _total(parts: list[Array]) -> Array:
    return functools.reduce(operator.add, parts)
