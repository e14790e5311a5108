"""p_eff against closed forms, finite differences and the estimation error that it stands for."""

import jax.numpy as jnp
import numpy as np
import pytest

from otflow.flow.flow import Flow
from otflow.potentials.base import AbstractPotential, GradientHessian
from otflow.schemes import Conforming
from otflow.studies.information import effective_parameters
from otflow.studies.members import point_objective
from otflow.support.precision import precision
from tests.fakes import Translation

ALPHA = 3.0


class Affine(AbstractPotential):
    """Phi = -(a x^2 / 2 + s x) in one dimension: T(x) = (1 + a) x + s; `idle` does nothing."""

    theta: jnp.ndarray
    idle: jnp.ndarray

    @property
    def dim(self):
        return 1

    def value(self, x, t):
        return -(0.5 * self.theta[0] * x[:, 0] ** 2 + self.theta[1] * x[:, 0])

    def gradient(self, x, t):
        slope = -(self.theta[0] * x + self.theta[1])
        return jnp.concatenate([slope, jnp.zeros_like(x)], axis=1)

    def gradient_and_laplacian(self, x, t):
        raise NotImplementedError

    def gradient_and_hessian(self, x, t):
        hessian = jnp.broadcast_to(-self.theta[0], (x.shape[0], 1, 1))
        return GradientHessian(self.gradient(x, t), hessian)


def affine(a, s, idle=1):
    with precision("float64"):
        return Flow(Affine(jnp.array([a, s]), jnp.ones(idle)), scheme=Conforming(1))


def translation(shift):
    with precision("float64"):
        return Flow(Translation(jnp.asarray(shift)), scheme=Conforming(1))


def draw(n, d, seed=0):
    return 0.5 + np.random.default_rng(seed).standard_normal((n, d)) * np.linspace(0.5, 1.5, d)


@pytest.mark.parametrize("n", [100, 256, 1024])
def test_a_translation(n):
    """Per row the gradient is s + alpha (x + s): H = (1 + alpha) I, S = alpha^2 cov(x)."""
    x = draw(n, 2)
    exact = ALPHA * np.trace(np.cov(x.T, bias=True)) / (1 + ALPHA)
    assert effective_parameters(translation([0.3, -0.2]), x, ALPHA) == pytest.approx(exact, 1e-9)


def test_it_is_the_estimation_error_of_a_translation():
    """theta_N = -alpha / (1 + alpha) mean: E J(theta_N) - J* = alpha p_eff / (2N).

    4,000 sample sets of 50: the mean of a chi-square with two degrees within 4 standard errors.
    """
    population = draw(1_000_000, 2, seed=1)[: 256 * 3906]
    p_eff = effective_parameters(translation([-0.375, -0.375]), population[: 256 * 400], ALPHA)
    sets = draw(4000 * 50, 2, seed=2).reshape(4000, 50, 2).mean(axis=1)
    off = ALPHA / (1 + ALPHA) * (sets - 0.5)
    gaps = 0.5 * (1 + ALPHA) * (off**2).sum(axis=1)
    error = gaps.std(ddof=1) / np.sqrt(4000)
    assert abs(gaps.mean() - ALPHA * p_eff / 100) < 4 * error + 0.02 * gaps.mean()
    assert error < 0.03 * gaps.mean()


def test_an_affine_map_by_hand():
    """With a log-determinant: H and S written out."""
    a, s, x = 0.2, -0.3, draw(512, 1)[:, 0]
    moved, y = a * x + s, (1 + a) * x + s
    gradients = np.stack([moved * x + ALPHA * (y * x - 1 / (1 + a)), moved + ALPHA * y])
    m1, m2 = x.mean(), (x**2).mean()
    hessian = (1 + ALPHA) * np.array([[m2, m1], [m1, 1.0]])
    hessian[0, 0] += ALPHA / (1 + a) ** 2
    exact = np.trace(np.linalg.solve(hessian, np.cov(gradients, bias=True))) / ALPHA
    found = effective_parameters(affine(a, s), x[:, None], ALPHA)
    assert found == pytest.approx(exact, rel=1e-9)


def test_an_affine_map_by_finite_differences():
    """The objective of every row at shifted parameters; second differences are good to 1e-5."""
    theta, x, h = np.array([0.2, -0.3]), draw(256, 1), 1e-3

    def at(*shifts):
        return point_objective(affine(*(theta + h * np.sum(shifts, axis=0))), x, ALPHA)

    e = np.eye(2)
    gradients = [(at(v) - at(-v)) / (2 * h) for v in e]
    hessian = [
        [(at(v, w) - at(v, -w) - at(-v, w) + at(-v, -w)).mean() / (4 * h * h) for v in e] for w in e
    ]
    exact = np.trace(np.linalg.solve(hessian, np.cov(gradients, bias=True))) / ALPHA
    assert effective_parameters(affine(*theta), x, ALPHA) == pytest.approx(exact, rel=1e-4)


def test_parameters_that_do_nothing_do_not_count():
    x = draw(256, 1)
    few, many = (effective_parameters(affine(0.2, -0.3, idle=k), x, ALPHA) for k in (1, 20))
    assert many == pytest.approx(few, rel=1e-9)


def test_too_many_parameters():
    with pytest.raises(ValueError, match=r"^flow: expected at most 2000 parameters; got 2001"):
        effective_parameters(translation(np.zeros(2001)), np.zeros((1, 2001)), ALPHA)
