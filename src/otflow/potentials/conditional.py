"""Potentials Phi(x, t; c) of conditional flows: c moves biases, means and shifts."""

import abc
import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from otflow.potentials.base import (
    AbstractPotential,
    GradientHessian,
    GradientLaplacian,
    Points,
    Times,
)
from otflow.potentials.gaussian import GaussianBase
from otflow.potentials.resnet import ResNetPotential
from otflow.potentials.stages import ConvexStages, slopes
from otflow.support.precision import default_rules

Condition = Float[Array, "n k"] | Float[Array, " k"]


class AbstractConditional(AbstractPotential):
    """A potential that needs a condition c in R^k before it has values.

    `given(c)` is an ordinary potential, with the closed forms of one: for n points, each under its
    own row of c (n, k), or for any points under one c (k,).
    """

    @property
    def dim(self) -> int:
        """d, the dimension of x."""
        return self._plain.dim

    @property
    def floats_per_point(self) -> int:
        """That of the potential under one condition."""
        return self._plain.floats_per_point

    @property
    @abc.abstractmethod
    def _plain(self) -> AbstractPotential:
        """The potential at c = 0."""

    @abc.abstractmethod
    def given(self, condition: Condition | None) -> AbstractPotential:
        """The potential under a condition."""

    def _check(self, condition: Condition | None) -> Condition:
        k = self.condition_dim
        if condition is None:
            raise ValueError(f"condition: expected shape (n, {k}) or ({k},); got none.")
        condition = jnp.asarray(condition)
        if condition.ndim not in (1, 2) or condition.shape[-1] != k:
            raise ValueError(
                f"condition: expected shape (n, {k}) or ({k},); got {condition.shape}."
            )
        return condition

    def value(self, x: Points, t: Times) -> Float[Array, " n"]:
        """Raises ValueError: `given(condition)` has values."""
        return self.given(None).value(x, t)

    def gradient(self, x: Points, t: Times) -> Float[Array, "n d+1"]:
        """Raises ValueError, as `value`."""
        return self.given(None).gradient(x, t)

    def gradient_and_laplacian(self, x: Points, t: Times) -> GradientLaplacian:
        """Raises ValueError, as `value`."""
        return self.given(None).gradient_and_laplacian(x, t)

    def gradient_and_hessian(self, x: Points, t: Times) -> GradientHessian:
        """Raises ValueError, as `value`."""
        return self.given(None).gradient_and_hessian(x, t)


class ConditionalResNet(AbstractConditional):
    """The network with b_0 + C c in the place of b_0, and b + G c in the place of b (SPEC 2).

    So the first layer takes c beside s = (x, t), and the bilinear term s'G c expresses a shift of
    the data that is linear in c.
    """

    network: ResNetPotential
    C: Float[Array, "m k"]
    G: Float[Array, "d+1 k"]

    def __check_init__(self) -> None:
        k = self.C.shape[-1]
        for name, rows in (("C", self.network.width), ("G", self.network.dim + 1)):
            if getattr(self, name).shape != (rows, k):
                raise ValueError(
                    f"{name}: expected shape {(rows, k)}; got {getattr(self, name).shape}."
                )

    @staticmethod
    @default_rules()
    def create(
        dim: int,
        condition_dim: int,
        width: int,
        depth: int,
        key: PRNGKeyArray,
        output_scale: float = 1.0,
    ) -> "ConditionalResNet":
        """A random network (`ResNetPotential.create`), C uniform on the scale of K_0, G = 0.

        Raises:
            ValueError: condition_dim below 1, or as `ResNetPotential.create`.
        """
        if condition_dim < 1:
            raise ValueError(f"condition_dim: expected an integer >= 1; got {condition_dim}.")
        network = ResNetPotential.create(dim, width, depth, key, output_scale)
        bound = math.sqrt(3) * jnp.sqrt(jnp.mean(network.weights[0] ** 2))
        key = jax.random.fold_in(key, condition_dim)
        C = bound * jax.random.uniform(key, (width, condition_dim), minval=-1, maxval=1)
        return ConditionalResNet(network, C, jnp.zeros((dim + 1, condition_dim)))

    @property
    def _plain(self) -> ResNetPotential:
        return self.network

    @property
    def condition_dim(self) -> int:
        """k, columns of the condition."""
        return self.C.shape[1]

    def given(self, condition: Condition | None) -> ResNetPotential:
        """The network whose biases carry the condition.

        Raises:
            ValueError: no condition, or neither (n, k) nor (k,).
        """
        c = self._check(condition)
        p = self.network
        moved = (p.biases[0] + c @ self.C.T, p.b + c @ self.G.T)
        return eqx.tree_at(lambda p: (p.biases[0], p.b), p, moved)


class ConditionalGaussian(AbstractConditional):
    """The exact finite-alpha potential where x given c is N(mean + W c, Sigma) (SPEC 2.1).

    Only mu0 and delta depend on c: `W` is the slope of the one, `shift_slope` of the other.
    """

    base: GaussianBase
    W: Float[Array, "d k"]
    shift_slope: Float[Array, "d k"]
    trainable: ClassVar[bool] = False

    def __check_init__(self) -> None:
        for name in ("W", "shift_slope"):
            got = getattr(self, name).shape
            if len(got) != 2 or got != (self.base.dim, self.W.shape[-1]):
                raise ValueError(f"{name}: expected shape ({self.base.dim}, k); got {got}.")

    @staticmethod
    @default_rules()
    def solve(
        mean: Float[np.ndarray, " d"],
        W: Float[np.ndarray, "d k"],
        cov: Float[np.ndarray, "d d"],
        alpha: float,
        target_mean: Float[np.ndarray, " d"] | None = None,
        target_cov: Float[np.ndarray, "d d"] | None = None,
        target_slope: Float[np.ndarray, "d k"] | None = None,
    ) -> "ConditionalGaussian":
        """The minimiser of transport + alpha KL from N(mean + W c, cov) to a Gaussian, for every c.

        The target is N(0, I) unless it is given; its mean is target_mean + target_slope c.

        Raises:
            ValueError: as `GaussianBase.solve`, or W is not (d, k).
        """
        base = GaussianBase.solve(mean, cov, alpha, target_mean, target_cov)
        slope = jnp.asarray(W, float)
        if target_cov is None:
            return ConditionalGaussian(base, slope, slope / (1 + alpha) - slope)
        kept = np.linalg.inv(np.eye(len(W)) + alpha * np.linalg.inv(target_cov))
        moved = kept @ W - W
        if target_slope is not None:
            moved = moved + target_slope - kept @ target_slope
        return ConditionalGaussian(base, slope, jnp.asarray(moved, float))

    @property
    def _plain(self) -> GaussianBase:
        return self.base

    @property
    def condition_dim(self) -> int:
        """k, columns of the condition."""
        return self.W.shape[1]

    def given(self, condition: Condition | None) -> GaussianBase:
        """The Gaussian solution whose mean and shift carry the condition.

        Raises:
            ValueError: no condition, or neither (n, k) nor (k,).
        """
        c = self._check(condition)
        moved = (self.base.mean + c @ self.W.T, self.base.shift + c @ self.shift_slope.T)
        return eqx.tree_at(lambda p: (p.mean, p.shift), self.base, moved)


class ConditionalStages(AbstractConditional):
    """Convex stages whose slopes and biases move with c: s + S c, b + B c, beta + E c (SPEC 2.2).

    Nothing that keeps the stages convex depends on c, so the map is a bijection under every one.
    """

    stages: ConvexStages
    S: Float[Array, "K d k"]
    B: Float[Array, "K m k"]
    E: Float[Array, "K G R k"]

    def __check_init__(self) -> None:
        stage, k = self.stages.stage, self.S.shape[-1]
        for name, plain in (
            ("S", stage.slope),
            ("B", stage.ridge_biases),
            ("E", stage.term_biases),
        ):
            if getattr(self, name).shape != (*plain.shape, k):
                raise ValueError(
                    f"{name}: expected shape {(*plain.shape, k)}; got {getattr(self, name).shape}."
                )

    @staticmethod
    @default_rules()
    def create(
        base: ConditionalGaussian, n_steps: int, width: int, key: PRNGKeyArray
    ) -> "ConditionalStages":
        """Stages that are those of the base for every c; ridges and terms move with c as well.

        Raises:
            ValueError: as `ConvexStages.create`.
        """
        stages = ConvexStages.create(base.base, n_steps, width, key)
        S = slopes(base.base, n_steps, base.W, base.shift_slope)
        keys = jax.random.split(jax.random.fold_in(key, base.condition_dim))
        found = (stages.stage.ridge_biases.shape, stages.stage.term_biases.shape)
        B, E = (
            jax.random.normal(key, (*shape, base.condition_dim))
            for key, shape in zip(keys, found, strict=True)
        )
        return ConditionalStages(stages, jnp.asarray(S, float), B, E)

    @property
    def _plain(self) -> ConvexStages:
        return self.stages

    @property
    def n_steps(self) -> int:
        """K."""
        return self.stages.n_steps

    @property
    def condition_dim(self) -> int:
        """k, columns of the condition."""
        return self.S.shape[-1]

    def given(self, condition: Condition | None) -> ConvexStages:
        """The stages under a condition.

        Raises:
            ValueError: no condition, or neither (n, k) nor (k,).
        """
        c = self._check(condition)
        stage = self.stages.stage

        def moved(plain: Array, slope: Array) -> Array:
            if c.ndim == 1:
                return plain + slope @ c
            return plain[:, None] + jnp.einsum("q...k,nk->qn...", slope, c)

        new = (
            moved(stage.slope, self.S),
            moved(stage.ridge_biases, self.B),
            moved(stage.term_biases, self.E),
        )
        return eqx.tree_at(
            lambda p: (p.stage.slope, p.stage.ridge_biases, p.stage.term_biases), self.stages, new
        )
