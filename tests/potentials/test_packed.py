"""Packed symmetric matrices: against NumPy's dense ones, and where they are not definite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow.potentials.packed import (
    apply,
    dense,
    pack,
    packed_dim,
    packed_size,
    pairs,
    squares,
    summed_squares,
    sweep,
)
from otflow.schemes.log_det import SWEPT, packed_log_det
from otflow.support.precision import precision

RNG = np.random.default_rng(0)


def definite(dim, n=6):
    """Eigenvalues of 0.01 to about 5."""
    A = RNG.standard_normal((n, dim, dim))
    return A @ A.swapaxes(1, 2) / dim + 0.01 * np.eye(dim)


@pytest.fixture(autouse=True)
def in_float64():
    with precision("float64"):
        yield


@pytest.mark.parametrize("dim", [1, 2, 5, 16])
def test_packing_is_undone(dim):
    M = definite(dim)
    packed = np.asarray(pack(M))
    assert packed.shape == (packed_size(dim), 6)
    assert packed_dim(packed_size(dim)) == dim
    np.testing.assert_array_equal(packed[:, 0], M[0][np.triu_indices(dim)])
    np.testing.assert_array_equal(dense(packed), (M + M.swapaxes(1, 2)) / 2)


def test_squares_are_outer_products():
    v = RNG.standard_normal((2, 4, 5))
    expected = np.einsum("kin,kjn->knij", v, v)
    np.testing.assert_allclose([dense(part) for part in squares(v)], expected, rtol=1e-15)


def test_slope_of_squares():
    """Against automatic differentiation of the dense outer products."""
    v, w = RNG.standard_normal((2, 4, 5)), RNG.standard_normal((2, packed_size(4), 5))

    def plainly(v):
        outer = v[:, :, None] * v[:, None]
        return (w * outer[:, *pairs(4)]).sum()

    found = jax.grad(lambda v: (w * squares(v)).sum())(v)
    np.testing.assert_allclose(found, jax.grad(plainly)(v), rtol=1e-13)


def test_sum_of_squares_and_its_slopes():
    """As the weighted sum of squares of each; slopes by automatic differentiation of that."""
    weights, v, w = RNG.random(2), RNG.standard_normal((2, 4, 5)), RNG.standard_normal((10, 5))

    def plainly(weights, v):
        return jnp.sum(weights[:, None, None] * squares(v), axis=0)

    np.testing.assert_allclose(summed_squares(weights, v), plainly(weights, v), rtol=1e-13)
    found, expected = (
        jax.grad(lambda a, b, f=f: (w * f(a, b)).sum(), (0, 1))(weights, v)
        for f in (summed_squares, plainly)
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_forward_mode_is_the_transpose_of_reverse_mode():
    """<u, J v> = <J' u, v> for squares and their sums."""
    weights, v, u = RNG.random(2), RNG.standard_normal((2, 4, 5)), RNG.standard_normal((10, 5))
    dw, dv = RNG.standard_normal(2), RNG.standard_normal((2, 4, 5))
    cases = ((summed_squares, (weights, v), (dw, dv)), (squares, (v[0],), (dv[0],)))
    for function, at, direction in cases:
        moved = jax.jvp(function, at, direction)[1]
        slopes = jax.vjp(function, *at)[1](jnp.asarray(u))
        expected = sum(np.vdot(s, d) for s, d in zip(slopes, direction, strict=True))
        assert np.vdot(u, moved) == pytest.approx(expected, rel=1e-12)


def test_slopes_have_no_scatter():
    """On a CPU a scatter goes number by number."""
    v = RNG.standard_normal((2, 4, 5))
    slopes = jax.grad(lambda w, v: summed_squares(w, v).sum(), (0, 1))
    assert "scatter" not in str(jax.make_jaxpr(slopes)(RNG.random(2), v))


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 11, 16])
def test_sweep_is_log_det_and_inverse(dim):
    """Condition numbers of some hundreds: 1e-11."""
    M = definite(dim)
    log_det, inverse = jax.jit(sweep)(np.moveaxis(M, 0, -1))
    np.testing.assert_allclose(log_det, np.linalg.slogdet(M)[1], rtol=0, atol=1e-11)
    np.testing.assert_allclose(np.moveaxis(inverse, -1, 0), np.linalg.inv(M), rtol=1e-9)
    b = RNG.standard_normal((6, dim))
    expected = np.linalg.solve(M, b[..., None])[..., 0]
    np.testing.assert_allclose(apply(inverse, b), expected, rtol=1e-9, atol=1e-10)


def test_sweep_where_a_matrix_is_not_definite():
    """A negative eigenvalue, a zero one, NaN: NaN there, the neighbour unharmed."""
    M = np.stack([np.diag([1.0, -1, 1, 1]), np.diag([1.0, 0, 1, 1]), np.full((4, 4), np.nan)])
    M = np.concatenate([M, definite(4, 1)])
    found = np.asarray(sweep(np.moveaxis(M, 0, -1))[0])
    assert np.isnan(found).tolist() == [True, True, True, False]
    assert found[3] == pytest.approx(np.linalg.slogdet(M[3])[1])


@pytest.mark.parametrize("dim", [1, 3, 7, SWEPT + 1])
def test_log_det_and_its_gradient(dim):
    """The gradient in the packed numbers, by central differences (step 1e-6: 1e-8)."""
    packed = np.asarray(pack(definite(dim, 3)))
    value, slope = jax.jit(jax.value_and_grad(lambda p: packed_log_det(p).sum()))(packed)
    assert value == pytest.approx(np.linalg.slogdet(np.asarray(dense(packed)))[1].sum())
    for place in RNG.integers(0, packed.shape[0], 3):
        ends = [packed.copy() for _ in range(2)]
        for end, sign in zip(ends, (1, -1), strict=True):
            end[place, 1] += sign * 1e-6
        up, down = (np.linalg.slogdet(np.asarray(dense(end)))[1].sum() for end in ends)
        assert slope[place, 1] == pytest.approx((up - down) / 2e-6, rel=1e-5, abs=1e-6)
