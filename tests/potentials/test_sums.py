"""A sum of potentials: every derivative is the sum of the terms' derivatives."""

import functools

import jax
import numpy as np
import pytest

from otflow.potentials import GaussianBase, SumPotential
from tests.helpers import random_resnet

pytestmark = pytest.mark.usefixtures("float64")

X = np.random.default_rng(0).standard_normal((4, 2))
T = np.array([0.0, 0.2, 0.7, 1.0])
METHODS = ["value", "gradient", "laplacian", "hessian"]


@functools.cache
def terms():
    base = GaussianBase.solve([1.0, -2.0], [[2.0, 0.3], [0.3, 0.5]], 3.0)
    return (base, random_resnet(2, seed=1), random_resnet(2, depth=1, seed=2))


def forms(phi, x, t):
    with_laplacian, with_hessian = phi.gradient_and_laplacian(x, t), phi.gradient_and_hessian(x, t)
    return {
        "value": phi.value(x, t),
        "gradient": phi.gradient(x, t),
        "laplacian": with_laplacian.laplacian,
        "hessian": with_hessian.hessian,
        "gradient beside the Laplacian": with_laplacian.gradient,
        "gradient beside the Hessian": with_hessian.gradient,
    }


@jax.jit
def of_the_sum_and_of_its_terms(phi, t):
    return forms(phi, X, t), [forms(term, X, t) for term in phi.terms]


@pytest.mark.parametrize("t", [0.4, T], ids=["scalar", "per-point"])
@pytest.mark.parametrize("method", METHODS)
def test_every_derivative_is_the_sum(method, t):
    """The same additions in the same order, up to rounding: 1e-14."""
    got, parts = of_the_sum_and_of_its_terms(SumPotential(terms()), t)
    expected = sum(np.asarray(part[method]) for part in parts)
    assert np.abs(expected).min() > 0
    np.testing.assert_allclose(got[method], expected, rtol=1e-13, atol=1e-14)


def test_gradients_beside_laplacian_and_hessian_are_the_gradient():
    found, _ = of_the_sum_and_of_its_terms(SumPotential(terms()), T)
    for name in ("gradient beside the Laplacian", "gradient beside the Hessian"):
        np.testing.assert_allclose(found[name], found["gradient"], rtol=1e-13, atol=1e-14)


def test_matches_autodiff_of_its_own_value():
    phi = SumPotential(terms())

    def value(s):
        return phi.value(s[None, :2], s[2])[0]

    by_autodiff = jax.jit(jax.vmap(jax.grad(value)))(np.column_stack([X, T]))
    found, _ = of_the_sum_and_of_its_terms(phi, T)
    np.testing.assert_allclose(found["gradient"], by_autodiff, rtol=1e-10)


def test_plus_builds_a_sum():
    a, b, c = terms()
    assert isinstance(a + b, SumPotential)
    assert (a + b).terms == (a, b)
    assert (a + b).dim == 2
    found = jax.jit(lambda phi: phi.value(X, T))(a + b + c)
    _, parts = of_the_sum_and_of_its_terms(SumPotential((a, b, c)), T)
    expected = sum(np.asarray(part["value"]) for part in parts)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


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
