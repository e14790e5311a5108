"""sigma and tanh against NumPy, automatic differentiation and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow.potentials.activation import sigma_and_tanh, tanh_of

U = np.array([-800.0, -20.0, -1.3, -1e-3, -1e-12, 0.0, 1e-12, 1e-3, 0.7, 20.0, 800.0])


def sigma(u):
    return sigma_and_tanh(u)[0]


def tanh(u):
    return sigma_and_tanh(u)[1]


def plain_sigma(u):
    """log(2 cosh u) without custom derivatives, for moderate u."""
    return jnp.log(jnp.exp(u) + jnp.exp(-u))


@pytest.mark.usefixtures("float64")
def test_values_match_numpy():
    """A few units in the last place of max(1, |value|): 4e-16."""
    np.testing.assert_allclose(sigma(U), np.logaddexp(U, -U), rtol=4e-16)
    np.testing.assert_allclose(tanh(U), np.tanh(U), atol=4e-16, rtol=0)


@pytest.mark.usefixtures("float64")
def test_tanh_of_is_the_second_output():
    np.testing.assert_array_equal(tanh_of(U), tanh(U))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("f", [tanh, tanh_of], ids=["sigma_and_tanh", "tanh_of"])
def test_tanh_is_odd_and_keeps_the_sign_of_zero(f):
    u = np.array([-0.0, 0.0, -3.0, 3.0])
    np.testing.assert_array_equal(np.signbit(f(u)), np.signbit(u))
    np.testing.assert_array_equal(f(-u), -f(u))


DERIVATIVES = {
    "sigma'": (lambda: sigma, 1, np.tanh),
    "sigma''": (lambda: sigma, 2, lambda u: 1 - np.tanh(u) ** 2),
    "sigma'''": (lambda: sigma, 3, lambda u: -2 * np.tanh(u) * (1 - np.tanh(u) ** 2)),
    "tanh'": (lambda: tanh, 1, lambda u: 1 - np.tanh(u) ** 2),
    "tanh_of'": (lambda: tanh_of, 1, lambda u: 1 - np.tanh(u) ** 2),
    "tanh_of''": (lambda: tanh_of, 2, lambda u: -2 * np.tanh(u) * (1 - np.tanh(u) ** 2)),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("mode", [jax.grad, jax.jacfwd], ids=["reverse", "forward"])
@pytest.mark.parametrize("case", DERIVATIVES.values(), ids=DERIVATIVES)
def test_derivatives_in_closed_form(case, mode):
    """At zero and far out too, where |u| or exp would give NaN; rounding only: 4e-15."""
    make, times, expected = case
    f = make()
    for _ in range(times):
        f = mode(f)
    np.testing.assert_allclose(jax.vmap(f)(U), expected(U), atol=4e-15, rtol=0)


@pytest.mark.usefixtures("float64")
def test_derivatives_match_autodiff_of_the_plain_formula_and_differences():
    u = np.linspace(-3, 3, 13)
    plain = jax.vmap(jax.grad(plain_sigma))(u)
    np.testing.assert_allclose(tanh(u), plain, atol=4e-15, rtol=0)
    step = 1e-5  # central differences: truncation step^2, rounding eps / step: 1e-10
    np.testing.assert_allclose((sigma(u + step) - sigma(u - step)) / (2 * step), plain, atol=1e-10)


def test_float32_stays_float32():
    for out in (*sigma_and_tanh(jnp.ones(3)), tanh_of(jnp.ones(3))):
        assert out.dtype == jnp.float32
