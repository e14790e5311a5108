"""The residual-network potential of OT-Flow, with closed-form derivatives (SPEC 2)."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from otflow.potentials.activation import sigma_and_tanh, tanh_of
from otflow.potentials.base import (
    AbstractPotential,
    GradientHessian,
    GradientLaplacian,
    Points,
    Times,
    join_time,
)
from otflow.support.precision import default_rules


class _Pass(eqx.Module):
    """What the forward and backward passes leave behind; lists run over layers 0..L."""

    s: Float[Array, "n d+1"]
    tanhs: list[Float[Array, "n m"]]
    adjoints: list[Float[Array, "n m"]]  # z_(i+1), the weight that layer i's output carries


class ResNetPotential(AbstractPotential):
    """Phi(s) = w'u_L + 1/2 s'A'A s + b's + c with s = (x, t) and a residual network u_L (SPEC 2).

    Depth L = 0, outside SPEC 2, leaves u_0 alone: a sum of m ridge functions, whose Hessian costs
    m d^2 instead of m^2 d.

    `weights[0]` is K_0, shape (m, d+1); `weights[i]`, i = 1..L, are K_i, shape (m, m); `biases[i]`
    have shape (m,). A is (r, d+1) with r = min(10, d+1), b is (d+1,), w is (m,), c a scalar.
    Under a condition (see `ConditionalResNet`) b and `biases[0]` have one row a point.
    """

    A: Float[Array, "r d+1"]
    b: Float[Array, " d+1"]
    c: Float[Array, ""]
    w: Float[Array, " m"]
    weights: tuple[Float[Array, "m _"], ...]
    biases: tuple[Float[Array, " m"], ...]

    def __check_init__(self) -> None:
        m, columns = self.weights[0].shape
        expected = {
            "A": (self.A.shape[0], columns),
            "b": (columns,),
            "c": (),
            "w": (m,),
            "weights": ((m, columns), *((m, m),) * self.depth),
            "biases": ((m,),) * (self.depth + 1),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            got = tuple(v.shape for v in value) if isinstance(value, tuple) else value.shape
            if got != shape:
                raise ValueError(f"{name}: expected shape {shape}; got {got}.")

    @staticmethod
    @default_rules()
    def create(
        dim: int,
        width: int,
        depth: int,
        key: PRNGKeyArray,
        output_scale: float = 1.0,
        directions: Float[np.ndarray, "k d"] | None = None,
    ) -> "ResNetPotential":
        """A random potential: K and b uniform within 1/sqrt(fan-in), A small, w = output_scale.

        At depth 0 the rows of K_0 have random directions and norm 1.5 and the ridges are spread
        over |x| <= 3, because nothing behind them can sharpen or move them.

        Args:
            dim: d of the data.
            width: m, units a layer.
            depth: L, number of residual layers, >= 0.
            key: a JAX PRNG key.
            output_scale: every entry of w; 0 starts the network silent, as on top of a base.
            directions: unit vectors that the ridges of depth 0 take in turn, in the place of random
                ones.

        Raises:
            ValueError: dim or width below 1, depth below 0.
        """
        for name, size, least in (("dim", dim, 1), ("width", width, 1), ("depth", depth, 0)):
            if size < least:
                raise ValueError(f"{name}: expected an integer >= {least}; got {size}.")
        key_A, *keys = jax.random.split(key, 2 * depth + 3)
        fans = [dim + 1] + [width] * depth

        def uniform(key: PRNGKeyArray, shape: tuple[int, ...], fan: int) -> Array:
            return jax.random.uniform(key, shape, minval=-1, maxval=1) / math.sqrt(fan)

        rank = min(10, dim + 1)
        weights = [uniform(k, (width, f), f) for k, f in zip(keys[::2], fans, strict=True)]
        biases = [uniform(k, (width,), f) for k, f in zip(keys[1::2], fans, strict=True)]
        if depth == 0:
            ridges = jax.random.normal(keys[0], (width, dim + 1))
            norms = jnp.linalg.norm(ridges[:, :dim], axis=1, keepdims=True)
            ridges = 1.5 * ridges / norms
            if directions is not None:
                turns = jnp.arange(width) % len(directions)
                ridges = ridges.at[:, :dim].set(1.5 * jnp.asarray(directions)[turns])
            weights = [ridges]
            biases = [jax.random.uniform(keys[1], (width,), minval=-4.5, maxval=4.5)]
        return ResNetPotential(
            A=0.01 * uniform(key_A, (rank, dim + 1), dim + 1),
            b=jnp.zeros(dim + 1),
            c=jnp.zeros(()),
            w=jnp.full(width, output_scale, dtype=float),
            weights=tuple(weights),
            biases=tuple(biases),
        )

    @property
    def dim(self) -> int:
        """d, the dimension of x."""
        return self.weights[0].shape[1] - 1

    @property
    def width(self) -> int:
        """m, units a layer."""
        return self.weights[0].shape[0]

    @property
    def depth(self) -> int:
        """L, the number of residual layers."""
        return len(self.weights) - 1

    @property
    def floats_per_point(self) -> int:
        """d m for the layers' Jacobians; without residual layers the Hessian's d^2, or m."""
        return max(self.dim**2, self.width * (self.dim if self.depth else 1))

    def value(self, x: Points, t: Times) -> Float[Array, " n"]:
        """Phi(x, t), shape (n,)."""
        s = join_time(x, t, self.dim)
        h = 1 / max(self.depth, 1)
        u, _ = sigma_and_tanh(s @ self.weights[0].T + self.biases[0])
        for K, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            u = u + h * sigma_and_tanh(u @ K.T + bias)[0]
        quadratic = 0.5 * jnp.sum((s @ self.A.T) ** 2, axis=1)
        return u @ self.w + quadratic + jnp.sum(s * self.b, axis=1) + self.c

    def gradient(self, x: Points, t: Times) -> Float[Array, "n d+1"]:
        """(grad_x Phi, d_t Phi), shape (n, d+1), by the backward recursion of SPEC 2."""
        return self._gradient(self._passes(x, t))

    def gradient_and_laplacian(self, x: Points, t: Times) -> GradientLaplacian:
        """Gradient and Laplacian; the m x m by m x (n d) product dominates (SPEC 2)."""
        passes = self._passes(x, t)
        Kx = self.weights[0][:, :-1]
        weight = self._second(passes, 0)
        laplacian = weight @ jnp.sum(Kx**2, axis=1) + jnp.sum(self.A[:, :-1] ** 2)
        for i, Y in enumerate(self._layer_jacobians(passes), start=1):
            laplacian += jnp.sum(self._second(passes, i) * jnp.sum(Y * Y, axis=1), axis=1)
        return GradientLaplacian(self._gradient(passes), laplacian)

    def gradient_and_hessian(self, x: Points, t: Times) -> GradientHessian:
        """Gradient and exact Hessian in x, shape (n, d, d), by the forward recursion of SPEC 2."""
        passes = self._passes(x, t)
        Kx = self.weights[0][:, :-1]
        Ax = self.A[:, :-1]
        d = self.dim
        outer = (Kx[:, :, None] * Kx[:, None, :]).reshape(-1, d * d)
        hessian = (self._second(passes, 0) @ outer).reshape(-1, d, d) + Ax.T @ Ax
        for i, Y in enumerate(self._layer_jacobians(passes), start=1):
            weighted = self._second(passes, i)[:, None, :] * Y
            hessian += jnp.einsum("ndm,nem->nde", weighted, Y)
        return GradientHessian(self._gradient(passes), hessian)

    def _passes(self, x: Points, t: Times) -> _Pass:
        s = join_time(x, t, self.dim)
        h = 1 / max(self.depth, 1)
        u, tanh = sigma_and_tanh(s @ self.weights[0].T + self.biases[0])
        tanhs = [tanh]
        for i in range(1, self.depth + 1):
            a = u @ self.weights[i].T + self.biases[i]
            if i < self.depth:
                sigma, tanh = sigma_and_tanh(a)
                u = u + h * sigma
            else:  # the gradient needs only the slope of the last layer
                tanh = tanh_of(a)
            tanhs.append(tanh)
        z = jnp.broadcast_to(self.w, tanh.shape)
        adjoints = [z]
        for i in range(self.depth, 0, -1):
            z = z + h * (tanhs[i] * z) @ self.weights[i]
            adjoints.insert(0, z)
        return _Pass(s, tanhs, adjoints)

    def _gradient(self, passes: _Pass) -> Float[Array, "n d+1"]:
        network = (passes.tanhs[0] * passes.adjoints[0]) @ self.weights[0]
        return network + (passes.s @ self.A.T) @ self.A + self.b

    def _second(self, passes: _Pass, layer: int) -> Float[Array, "n m"]:
        """sigma'' of a layer times the weight of its output, the step h included for i >= 1."""
        h = 1 / self.depth if layer else 1.0
        return h * (1 - passes.tanhs[layer] ** 2) * passes.adjoints[layer]

    def _layer_jacobians(self, passes: _Pass) -> list[Float[Array, "n d m"]]:
        """K_i J_(i-1) for i = 1..L, contracted on the last, contiguous axis."""
        h = 1 / max(self.depth, 1)
        J = passes.tanhs[0][:, None, :] * self.weights[0][:, :-1].T
        jacobians = []
        for i in range(1, self.depth + 1):
            Y = J @ self.weights[i].T
            jacobians.append(Y)
            if i < self.depth:
                J = J + h * passes.tanhs[i][:, None, :] * Y
        return jacobians
