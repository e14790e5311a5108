"""Convex stages: a convex function of its own for every Euler step, so every step is a bijection.

Stage k maps x to T_k(x) = grad u_k(x) with

    u_k(x) = 1/2 x'(L_k L_k' + F_k) x + s_k'x + sum_j c_kj log cosh(W_kj x + b_kj)
             + sum_g e_kg log sum_r exp(A_kgr x + beta_kgr),        c, e > 0,   F_k > 0 fixed,

a smooth and strongly convex function: T_k is a diffeomorphism of R^d (Hadamard) wherever points
are and whatever the parameters, so the density of the composed map integrates to one (SPEC 2.2).
As a potential, Phi(x, k h) = (|x|^2 / 2 - u_k(x)) / h with h = 1/K.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from otflow.potentials.base import AbstractStages, EulerStep, Points, Times, check_points
from otflow.potentials.gaussian import GaussianBase
from otflow.potentials.packed import pack, packed_size, squares, summed_squares
from otflow.support.precision import default_rules

FLOOR = 0.05  # F_k, as a share of the Jacobian of the Gaussian base's step
GROUPS, GROUP_SIZE = 4, 32  # log-sum-exps a stage, and terms of each
_RIDGE_NORM, _RIDGE_RANGE, _TERM_NORM = 1.5, 4.5, 2.0
_SHARPNESS = 4.0  # of the softplus that keeps heights positive
_PACKED = 100  # columns up to which a Jacobian is a sum over directions' squares
_SILENT = -2.0  # raw height at the start: 8e-5


class ConvexStage(eqx.Module):
    """u_k of one stage; arrays with a leading axis K are K of them.

    `quadratic` is L; biases and slope have one row a point where the stage is under a condition.
    """

    quadratic: Float[Array, "*K d d"]
    slope: Float[Array, "*K d"]
    ridges: Float[Array, "*K m d"]
    ridge_biases: Float[Array, "*K m"]
    ridge_heights: Float[Array, "*K m"]
    terms: Float[Array, "*K G R d"]
    term_biases: Float[Array, "*K G R"]
    group_heights: Float[Array, "*K G"]

    def value(self, x: Points, floor: Float[Array, "d d"]) -> Float[Array, " n"]:
        """u_k(x)."""
        ridges, terms = self._arguments(x)
        log_cosh = jnp.abs(ridges) + jnp.log1p(jnp.exp(-2 * jnp.abs(ridges))) - math.log(2)
        total = 0.5 * jnp.sum(x * (x @ self._matrix(floor)), axis=1) + jnp.sum(x * self.slope, 1)
        total = total + height(self.ridge_heights) @ log_cosh
        return total + height(self.group_heights) @ jax.nn.logsumexp(terms, axis=1)

    def image(self, x: Points, floor: Float[Array, "d d"]) -> Float[Array, "n d"]:
        """grad u_k(x)."""
        ridges, terms = self._arguments(x)
        return self._image(x, floor, jnp.tanh(ridges), self._means(jax.nn.softmax(terms, axis=1)))

    def step(self, x: Points, floor: Float[Array, "d d"]) -> EulerStep:
        """grad u_k and its Jacobian, >= F_k, at n points: two products with the directions."""
        ridges, arguments = self._arguments(x)
        tanh, shares = jnp.tanh(ridges), jax.nn.softmax(arguments, axis=1)
        means, e = self._means(shares), height(self.group_heights)
        weights = jnp.repeat(e, self.terms.shape[1])
        terms = self.terms.reshape(-1, self.terms.shape[2])
        c, bends = height(self.ridge_heights), 1 - tanh**2
        flat = shares.reshape(len(terms), -1)
        if x.shape[1] <= _PACKED:
            jacobian = (c * squares(self.ridges.T)) @ bends + (weights * squares(terms.T)) @ flat
        else:  # the squares of all directions would be larger than the points' matrices
            both = jnp.concatenate([c[:, None] * bends, weights[:, None] * flat])
            directions = jnp.concatenate([self.ridges, terms])
            jacobian = pack((both.T[:, None] * directions.T) @ directions)
        jacobian = jacobian - summed_squares(e, means) + pack(self._matrix(floor)[None])
        return EulerStep(self._image(x, floor, tanh, means), jacobian)

    def _matrix(self, floor: Float[Array, "d d"]) -> Float[Array, "d d"]:
        return self.quadratic @ self.quadratic.T + floor

    def _arguments(self, x: Points) -> tuple[Float[Array, "m n"], Float[Array, "G R n"]]:
        """What ridges and terms are taken of; points in columns, as in all below."""
        ridges = self.ridges @ x.T + _last(self.ridge_biases, 1)
        return ridges, self.terms @ x.T + _last(self.term_biases, 2)

    def _means(self, shares: Float[Array, "G R n"]) -> Float[Array, "G d n"]:
        """The mean direction of each group's terms."""
        return jnp.swapaxes(self.terms, 1, 2) @ shares

    def _image(
        self, x: Points, floor: Array, tanh: Float[Array, "m n"], means: Float[Array, "G d n"]
    ) -> Float[Array, "n d"]:
        pulled = (height(self.ridge_heights)[:, None] * self.ridges).T @ tanh
        pulled = pulled + jnp.sum(height(self.group_heights)[:, None, None] * means, axis=0)
        return x @ self._matrix(floor) + self.slope + pulled.T


def _last(bias: Float[Array, "..."], ndim: int) -> Float[Array, "..."]:
    """A bias of `ndim` axes, or a row of them a point, with the points' axis last."""
    return jnp.moveaxis(bias, 0, -1) if bias.ndim > ndim else bias[..., None]


def height(raw: Array) -> Array:
    """c or e > 0 of a raw parameter: a softplus that is sharp enough to be silent at the start."""
    return jax.nn.softplus(_SHARPNESS * raw) / _SHARPNESS


class ConvexStages(AbstractStages):
    """K convex stages; the Euler step at t = k/K is that of stage k, and only those K times exist.

    `base` decides the floors F_k = floor (I - h Hess Phi_G(., k h)) and is never trained.
    """

    base: GaussianBase
    stage: ConvexStage  # K of them
    floor: float = eqx.field(static=True, default=FLOOR)

    def __check_init__(self) -> None:
        _check_floor(self.floor)
        K, m, d = self.stage.ridges.shape
        _, G, R, _ = self.stage.terms.shape
        expected = {
            "quadratic": (K, d, d),
            "slope": (K, d),
            "ridge_biases": (K, m),
            "ridge_heights": (K, m),
            "terms": (K, G, R, d),
            "term_biases": (K, G, R),
            "group_heights": (K, G),
        }
        if d != self.base.dim:
            raise ValueError(f"ridges: expected {self.base.dim} columns, the base's; got {d}.")
        for name, shape in expected.items():
            got = getattr(self.stage, name).shape
            if got != shape and (got[0], *got[2:]) != shape:  # a row a point, under a condition
                raise ValueError(f"{name}: expected shape {shape}; got {got}.")

    @staticmethod
    @default_rules()
    def create(
        base: GaussianBase,
        n_steps: int,
        width: int,
        key: PRNGKeyArray,
        groups: int = GROUPS,
        group_size: int = GROUP_SIZE,
        floor: float = FLOOR,
    ) -> "ConvexStages":
        """Stages that are those of the base, with ridges and log-sum-exps that are nearly silent.

        Args:
            base: the Gaussian solution to start from.
            n_steps: K.
            width: m, ridges a stage.
            key: a JAX PRNG key.
            groups: G, log-sum-exps a stage.
            group_size: R, terms of each.
            floor: the smallest Jacobian, as a share of the base's.

        Raises:
            ValueError: a size below 1, or a floor outside (0, 1).
        """
        sizes = {"n_steps": n_steps, "width": width, "groups": groups, "group_size": group_size}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name}: expected an integer >= 1; got {size}.")
        _check_floor(floor)
        d, h = base.dim, 1 / n_steps
        factors = np.linalg.cholesky((1 - floor) * (np.eye(d) + h * _rates(base, n_steps)))
        keys = jax.random.split(key, 4)
        ridges = jax.random.normal(keys[0], (n_steps, width, d))
        terms = jax.random.normal(keys[1], (n_steps, groups, group_size, d))
        biases = jax.random.uniform(keys[2], (n_steps, width), minval=-1.0, maxval=1.0)
        stage = ConvexStage(
            quadratic=jnp.asarray(factors, float),
            slope=jnp.asarray(slopes(base, n_steps, base.mean, base.shift), float),
            ridges=_RIDGE_NORM * ridges / jnp.linalg.norm(ridges, axis=-1, keepdims=True),
            ridge_biases=_RIDGE_RANGE * biases,
            ridge_heights=jnp.full((n_steps, width), _SILENT, float),
            terms=_TERM_NORM * terms / jnp.linalg.norm(terms, axis=-1, keepdims=True),
            term_biases=jax.random.normal(keys[3], (n_steps, groups, group_size)),
            group_heights=jnp.full((n_steps, groups), _SILENT, float),
        )
        return ConvexStages(base, stage, floor)

    @property
    def dim(self) -> int:
        """d, the dimension of x."""
        return self.base.dim

    @property
    def n_steps(self) -> int:
        """K."""
        return self.stage.ridges.shape[0]

    @property
    def floats_per_point(self) -> int:
        """The Jacobian's upper triangle, or the arguments and slopes of ridges and terms."""
        _, G, R, d = self.stage.terms.shape
        return max(packed_size(d), 2 * (self.stage.ridges.shape[1] + G * R))

    def convex_value(self, x: Points, t: Times) -> Float[Array, " n"]:
        """u_k(x)."""
        stage, floor = self._at(t)
        return stage.value(check_points(x, self.dim), floor)

    def image(self, x: Points, t: Times) -> Float[Array, "n d"]:
        """T_k(x)."""
        stage, floor = self._at(t)
        return stage.image(check_points(x, self.dim), floor)

    def step(self, x: Points, t: Times) -> EulerStep:
        """T_k(x) and its Jacobian."""
        stage, floor = self._at(t)
        return stage.step(check_points(x, self.dim), floor)

    def of_points(self, index: Int[Array, " k"]) -> "ConvexStages":
        """Those of some points, where a condition moves slope and biases point by point."""
        s, d = self.stage, self.dim

        def pick(array: Array, plain: tuple[int, ...]) -> Array:
            return array if array.shape == (self.n_steps, *plain) else array[:, index]

        new = (
            pick(s.slope, (d,)),
            pick(s.ridge_biases, s.ridges.shape[1:2]),
            pick(s.term_biases, s.terms.shape[1:3]),
        )
        return eqx.tree_at(
            lambda p: (p.stage.slope, p.stage.ridge_biases, p.stage.term_biases), self, new
        )

    def _at(self, t: Times) -> tuple[ConvexStage, Float[Array, "d d"]]:
        """The stage of a time k/K; the last one from (K-1)/K on."""
        t = jnp.asarray(t)
        if t.ndim:
            raise ValueError(f"t: expected a scalar, a stage has one time; got shape {t.shape}.")
        k = jnp.clip(jnp.round(t * self.n_steps).astype(jnp.int32), 0, self.n_steps - 1)
        basis, stretch = self.base.basis, self.base.stretch
        own = 1 + stretch / (self.n_steps + k * stretch)  # of I - h Hess Phi_G
        floor = self.floor * (basis * own) @ basis.T
        own_stage = jax.tree.map(
            lambda array: jax.lax.dynamic_index_in_dim(array, k, 0, keepdims=False), self.stage
        )
        return own_stage, floor


def _check_floor(floor: float) -> None:
    if not 0 < floor < 1:
        raise ValueError(f"floor: expected a number in (0, 1); got {floor}.")


def slopes(
    base: GaussianBase, n_steps: int, mean: Float[Array, "d *k"], shift: Float[Array, "d *k"]
) -> Float[np.ndarray, "K d *k"]:
    """s_k of the stages of a base with that mean and shift, or their derivatives in a condition."""
    start, moved = (np.asarray(a, np.float64) for a in (mean, shift))
    times = (np.arange(n_steps) / n_steps).reshape(-1, *(1,) * start.ndim)
    carried = np.einsum("qde,qe...->qd...", _rates(base, n_steps), start + times * moved)
    return (moved - carried) / n_steps


def _rates(base: GaussianBase, n_steps: int) -> Float[np.ndarray, "K d d"]:
    """-Hess Phi_G at the K times."""
    basis, stretch = (np.asarray(a, np.float64) for a in (base.basis, base.stretch))
    times = np.arange(n_steps)[:, None] / n_steps
    return (basis * (stretch / (1 + times * stretch))[:, None, :]) @ basis.T
