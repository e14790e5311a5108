"""Flows with one known fault each, on top of a flow that is right."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from otflow.flow.flow import Flow
from otflow.potentials import GaussianBase
from otflow.potentials.base import AbstractPotential, GradientHessian, GradientLaplacian
from otflow.schemes import RK4, AbstractScheme, Conforming, Push
from otflow.support.precision import precision
from otflow.targets import GaussianMixture

MEAN, COV, ALPHA = np.array([1.0, -0.5]), np.array([[2.0, 0.5], [0.5, 0.6]]), 10.0


def density(mean=MEAN, cov=COV):
    """N(mean, cov) as an object of `otflow.targets`."""
    with precision("float64"):
        return GaussianMixture([1.0], np.asarray(mean)[None], np.asarray(cov)[None])


def gaussian_flow(scheme=None, alpha=ALPHA, mean=MEAN, cov=COV):
    """The exact optimal flow of N(mean, cov) at alpha."""
    with precision("float64"):
        return Flow(GaussianBase.solve(mean, cov, alpha), None, scheme or Conforming(1))


class Faulty(AbstractScheme):
    """Another scheme that rotates its end points about the origin (first two axes) by an angle, and
    reports its log-determinant times a factor. Faults are arrays: all share compiled programs."""

    inner: AbstractScheme
    angle: np.ndarray
    factor: np.ndarray

    @property
    def n_steps(self):
        return self.inner.n_steps

    @property
    def continuous(self):
        return self.inner.continuous

    def _turn(self, y, sign):
        c, s = jnp.cos(self.angle), sign * jnp.sin(self.angle)
        first, second = y[..., 0], y[..., 1]
        turned = jnp.stack([c * first - s * second, s * first + c * second], axis=-1)
        return jnp.concatenate([turned, y[..., 2:]], axis=-1)

    def push(self, potential, x):
        found = self.inner.push(potential, x)
        y = self._turn(found.points, 1.0)
        transport = 0.5 * jnp.sum((y - x) ** 2, axis=1)
        costs = (transport, jnp.zeros_like(transport), found.valid, found.hjb)
        return Push(y, self.factor * found.log_det, *costs)

    def pull(self, potential, y):
        return self.inner.pull(potential, self._turn(y, -1.0))

    def trajectories(self, potential, x):
        return jnp.stack([x, self.push(potential, x).points])


def faulty_flow(angle=0.0, factor=1.0):
    """The exact Gaussian flow, rotated, or with a wrong log-determinant."""
    return gaussian_flow(Faulty(Conforming(1), np.asarray(angle), np.asarray(factor)))


class Swerve(AbstractPotential):
    """Phi = -size cos(2 pi t) x_1: a velocity that integrates to zero, added to curve the paths."""

    size: np.ndarray
    _dim: int = eqx.field(static=True)

    @property
    def dim(self):
        return self._dim

    def value(self, x, t):
        return -self.size * jnp.cos(2 * jnp.pi * t) * x[:, 0]

    def gradient(self, x, t):
        t = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
        rows = jnp.zeros((x.shape[0], self.dim + 1), x.dtype)
        rows = rows.at[:, 0].set(-self.size * jnp.cos(2 * jnp.pi * t))
        change = 2 * jnp.pi * self.size * jnp.sin(2 * jnp.pi * t) * x[:, 0]
        return rows.at[:, -1].set(change)

    def gradient_and_laplacian(self, x, t):
        return GradientLaplacian(self.gradient(x, t), jnp.zeros_like(x[:, 0]))

    def gradient_and_hessian(self, x, t):
        zeros = jnp.zeros((x.shape[0], self.dim, self.dim), x.dtype)
        return GradientHessian(self.gradient(x, t), zeros)


def curved_flow(size=1.0, n_steps=16):
    """The exact Gaussian flow with a swerve on the way."""
    good = gaussian_flow()
    return Flow(good.potential + Swerve(np.asarray(size), good.dim), None, RK4(n_steps))


def untrained_flow():
    """The flow of another Gaussian: optimal to a wrong end point."""
    return gaussian_flow(mean=np.zeros(2), cov=np.eye(2))
