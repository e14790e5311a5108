"""A sum of potentials: every derivative is the sum of the terms' derivatives."""

import jax
import numpy as np
import pytest

from otflow.potentials import GaussianBase, SumPotential
from tests.support import random_resnet

pytestmark = pytest.mark.usefixtures("float64")

X = np.random.default_rng(0).standard_normal((4, 2))
T = np.array([0.0, 0.2, 0.7, 1.0])
METHODS = ["value", "gradient", "laplacian", "hessian"]


def terms():
    base = GaussianBase.solve([1.0, -2.0], [[2.0, 0.3], [0.3, 0.5]], 3.0)
    return (base, random_resnet(2, seed=1), random_resnet(2, depth=1, seed=2))


@pytest.mark.parametrize("t", [0.4, T], ids=["scalar", "per-point"])
@pytest.mark.parametrize("method", METHODS)
def test_every_derivative_is_the_sum(method, t):
    """The same additions in the same order, up to rounding: 1e-14."""
    expected = sum(getattr(term, method)(X, t) for term in terms())
    got = getattr(SumPotential(terms()), method)(X, t)
    assert np.abs(expected).min() > 0
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-14)


def test_gradients_beside_laplacian_and_hessian_are_the_gradient():
    phi = SumPotential(terms())
    gradient = phi.gradient(X, T)
    for found in (phi.gradient_and_laplacian(X, T), phi.gradient_and_hessian(X, T)):
        np.testing.assert_allclose(found.gradient, gradient, rtol=1e-13, atol=1e-14)


def test_matches_autodiff_of_its_own_value():
    phi = SumPotential(terms())

    def value(s):
        return phi.value(s[None, :2], s[2])[0]

    s = np.column_stack([X, T])
    np.testing.assert_allclose(phi.gradient(X, T), jax.vmap(jax.grad(value))(s), rtol=1e-10)


def test_plus_builds_a_sum():
    a, b, c = terms()
    assert isinstance(a + b, SumPotential)
    assert (a + b).terms == (a, b)
    assert (a + b).dim == 2
    expected = a.value(X, T) + b.value(X, T) + c.value(X, T)
    np.testing.assert_allclose((a + b + c).value(X, T), expected, rtol=1e-13)


def test_plus_anything_else_is_rejected():
    with pytest.raises(TypeError, match="unsupported operand"):
        terms()[0] + 1.0


@pytest.mark.parametrize(
    "build",
    [lambda a, b: SumPotential((a, b)), lambda a, b: a + b],
    ids=["constructor", "plus"],
)
def test_mixed_dimensions_are_rejected(build):
    with pytest.raises(ValueError, match=r"^terms: expected .* one dim; got dims \{2, 3\}"):
        build(random_resnet(2), random_resnet(3))


def test_no_terms_are_rejected():
    with pytest.raises(ValueError, match=r"^terms: expected at least one"):
        SumPotential(())
