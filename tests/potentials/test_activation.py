"""sigma and tanh against NumPy, automatic differentiation and finite differences."""

import functools

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
    "sigma'": (sigma, 1, np.tanh),
    "sigma''": (sigma, 2, lambda u: 1 - np.tanh(u) ** 2),
    "sigma'''": (sigma, 3, lambda u: -2 * np.tanh(u) * (1 - np.tanh(u) ** 2)),
    "tanh'": (tanh, 1, lambda u: 1 - np.tanh(u) ** 2),
    "tanh_of'": (tanh_of, 1, lambda u: 1 - np.tanh(u) ** 2),
    "tanh_of''": (tanh_of, 2, lambda u: -2 * np.tanh(u) * (1 - np.tanh(u) ** 2)),
}


@functools.cache
def derivatives(mode):
    """All of them at U, by name, from one program."""

    def differentiated(f, times):
        for _ in range(times):
            f = mode(f)
        return jax.vmap(f)

    found = {name: differentiated(f, times) for name, (f, times, _) in DERIVATIVES.items()}
    return jax.jit(lambda u: {name: f(u) for name, f in found.items()})(U)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("mode", [jax.grad, jax.jacfwd], ids=["reverse", "forward"])
@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives_in_closed_form(name, mode):
    """At zero and far out too, where |u| or exp would give NaN; rounding only: 4e-15."""
    _, _, expected = DERIVATIVES[name]
    np.testing.assert_allclose(derivatives(mode)[name], expected(U), atol=4e-15, rtol=0)


@pytest.mark.usefixtures("float64")
def test_derivatives_match_autodiff_of_the_plain_formula_and_differences():
    u = np.linspace(-3, 3, 13)
    plain = jax.jit(jax.vmap(jax.grad(plain_sigma)))(u)
    np.testing.assert_allclose(tanh(u), plain, atol=4e-15, rtol=0)
    step = 1e-5  # central differences: truncation step^2, rounding eps / step: 1e-10
    up, down = np.asarray(sigma(u + step)), np.asarray(sigma(u - step))
    np.testing.assert_allclose((up - down) / (2 * step), plain, atol=1e-10)


def test_float32_stays_float32():
    ones = np.ones(3, np.float32)
    for out in (*sigma_and_tanh(ones), tanh_of(ones)):
        assert out.dtype == jnp.float32
