"""Conditional potentials: bound ones against the book, autodiff and differences, row by row.

Quick autodiff is that of a network and of a sum with the Gaussian; differences are of all.
"""

import equinox as eqx
import jax
import numpy as np
import pytest

from otflow.potentials import (
    ConditionalGaussian,
    ConditionalResNet,
    GaussianBase,
    ResNetPotential,
    SumPotential,
)
from otflow.support.precision import precision
from tests.helpers import random_resnet, resnet_by_the_book

D, K, N = 3, 2, 4
ALPHA = 3.0
RNG = np.random.default_rng(3)
X, C = RNG.standard_normal((N, D)), RNG.standard_normal((N, K))
T = np.array([0.0, 0.25, 0.6, 1.0])
MEAN, W = np.array([1.0, -2.0, 0.5]), RNG.standard_normal((D, K))
COV = np.array([[2.0, 0.3, 0.0], [0.3, 0.5, 0.1], [0.0, 0.1, 1.0]])

pytestmark = pytest.mark.usefixtures("float64")


def conditional_resnet(depth=2):
    network, rng = random_resnet(D, depth=depth, seed=depth), np.random.default_rng(depth)
    C, G = (rng.standard_normal((rows, K)) for rows in (network.width, D + 1))
    return ConditionalResNet(network, C, G)


def conditional_gaussian():
    return ConditionalGaussian.solve(MEAN, W, COV, ALPHA)


def both():
    return conditional_gaussian() + conditional_resnet(1)


POTENTIALS = {
    "depth 0": lambda: conditional_resnet(0),
    "depth 2": conditional_resnet,
    "gaussian": conditional_gaussian,
    "sum": both,
}
every = pytest.mark.parametrize("make", POTENTIALS.values(), ids=POTENTIALS)


def close(got, expected, tolerance=1e-10):
    """Relative to the largest entry."""
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale)


@jax.jit
def given(p, c):
    return p.given(c)


@jax.jit
def closed_forms(p, x, t):
    a, b = p.gradient_and_laplacian(x, t), p.gradient_and_hessian(x, t)
    return p.value(x, t), p.gradient(x, t), a.gradient, a.laplacian, b.gradient, b.hessian


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=() if name in ("depth 2", "sum") else pytest.mark.slow)
        for name, make in POTENTIALS.items()
    ],
)
def test_matches_autodiff_of_its_value_under_one_condition(make):
    p = make()

    def phi(s, c):
        return p.given(c).value(s[None, :-1], s[-1])[0]

    value, gradient, hessian = jax.jit(
        lambda s, c: [jax.vmap(f)(s, c) for f in (phi, jax.grad(phi), jax.hessian(phi))]
    )(np.column_stack([X, T]), C)
    hessian = np.asarray(hessian)[:, :-1, :-1]
    laplacian = hessian.trace(axis1=1, axis2=2)
    expected = (value, gradient, gradient, laplacian, gradient, hessian)
    for got, by_autodiff in zip(closed_forms(given(p, C), X, T), expected, strict=True):
        close(got, by_autodiff)


@every
class TestBound:
    def test_matches_central_differences(self, make):
        """Steps of 1e-5: truncation and rounding about 1e-10."""
        bound, step = given(make(), C), 1e-5
        _, gradient, _, _, _, hessian = closed_forms(bound, X, T)
        slopes, rows = [], []
        for e in step * np.eye(D + 1):
            up, down = (
                [np.asarray(form) for form in closed_forms(bound, X + z * e[:-1], T + z * e[-1])]
                for z in (1, -1)
            )
            slopes.append((up[0] - down[0]) / (2 * step))
            rows.append((up[1] - down[1])[:, :-1] / (2 * step))
        close(gradient, np.stack(slopes, axis=1), 1e-8)
        close(hessian, np.stack(rows[:-1], axis=2), 1e-8)

    def test_each_point_feels_its_own_condition_only(self, make):
        p = make()
        together = closed_forms(given(p, C), X, T)
        alone = [closed_forms(given(p, c), X, T) for c in C]
        for got, forms in zip(together, zip(*alone, strict=True), strict=True):
            own = np.stack([np.asarray(form)[i] for i, form in enumerate(forms)])
            np.testing.assert_allclose(got, own, rtol=1e-12, atol=1e-13)
        others = closed_forms(given(p, C[::-1]), X, T)
        assert np.abs(np.asarray(together[1]) - others[1]).min() > 1e-6

    def test_the_condition_moves_what_is_bound_under_jit(self, make):
        p = make()
        found = jax.jit(lambda c: p.given(c).gradient(X, T))(C)
        close(found, closed_forms(given(p, C), X, T)[1])

    def test_has_no_values_without_a_condition(self, make):
        p = make()
        assert (p.dim, p.condition_dim) == (D, K)
        for method in ("value", "gradient", "gradient_and_laplacian", "gradient_and_hessian"):
            with pytest.raises(ValueError, match=r"^condition: expected shape \(n, 2\) .*got none"):
                getattr(p, method)(X, T)

    @pytest.mark.parametrize("shape", [(), (3,), (N, 3), (1, N, K)], ids=str)
    def test_other_shapes_are_rejected(self, make, shape):
        with pytest.raises(ValueError, match=r"^condition: expected shape \(n, 2\) or \(2,\)"):
            make().given(np.zeros(shape))


@pytest.mark.parametrize("depth", [0, 2])
def test_the_network_is_the_book_with_moved_biases(depth):
    """Phi(s; c): b_0 + C c for b_0, and s'G c beside the rest."""
    p = conditional_resnet(depth)
    found = [np.asarray(form) for form in closed_forms(given(p, C), X, T)]
    for i, c in enumerate(C):
        moved = np.asarray(p.network.biases[0]) + p.C @ c
        moved = eqx.tree_at(lambda q: q.biases[0], p.network, moved)
        book = resnet_by_the_book(moved, X[i], T[i])
        s, bilinear = np.append(X[i], T[i]), np.asarray(p.G) @ c
        assert abs(s @ bilinear) > 1e-3
        close(found[0][i], book.value + s @ bilinear)
        close(found[1][i], book.gradient + bilinear)
        close(found[5][i], book.hessian)


def test_the_gaussian_is_solved_for_every_condition():
    p = conditional_gaussian()
    found = closed_forms(given(p, C), X, T)
    for i, c in enumerate(C):
        exact = GaussianBase.solve(MEAN + W @ c, COV, ALPHA)
        for a, b in zip(jax.tree.leaves(given(p, c)), jax.tree.leaves(exact), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13)
        for got, form in zip(found, closed_forms(exact, X, T), strict=True):
            own = np.asarray(form)[i]
            np.testing.assert_allclose(np.asarray(got)[i], own, rtol=1e-12, atol=1e-13)


def test_under_one_condition_it_is_an_ordinary_potential():
    network, base = conditional_resnet().given(C[0]), conditional_gaussian().given(C[0])
    assert type(network) is ResNetPotential
    assert type(base) is GaussianBase
    for p in (network, base):
        assert p.condition_dim == 0
        assert p.given(None) is p
        with pytest.raises(ValueError, match=r"^condition: expected none"):
            p.given(C[0])
    assert network.b.shape == (D + 1,)
    assert base.mean.shape == (D,)


class TestSum:
    def test_terms_without_a_condition_are_left_alone(self):
        plain = GaussianBase.solve(MEAN, COV, ALPHA)
        p = plain + conditional_resnet()
        assert p.condition_dim == K
        bound = p.given(C)
        assert bound.terms[0] is plain
        value, *_ = closed_forms(bound, X, T)
        terms = (plain, given(conditional_resnet(), C))
        close(value, sum(np.asarray(closed_forms(term, X, T)[0]) for term in terms))

    def test_a_sum_without_conditions_takes_none(self):
        p = GaussianBase.solve(MEAN, COV, ALPHA) + random_resnet(D)
        assert p.given(None) is p
        with pytest.raises(ValueError, match=r"^condition: expected none"):
            p.given(C)

    def test_widths_must_agree(self):
        other = ConditionalGaussian.solve(MEAN, np.ones((D, 1)), COV, ALPHA)
        with pytest.raises(ValueError, match=r"^terms: expected conditions of one width"):
            SumPotential((conditional_resnet(), other))


class TestCreate:
    def test_starts_with_no_shift_and_C_on_the_scale_of_K(self):
        p, plain = jax.jit(
            lambda key: (
                ConditionalResNet.create(D, 200, 30, 1, key),
                ResNetPotential.create(D, 30, 1, key),
            )
        )(jax.random.key(0))
        for a, b in zip(jax.tree.leaves(p.network), jax.tree.leaves(plain), strict=True):
            np.testing.assert_array_equal(a, b)
        assert (p.C.shape, p.G.shape) == ((30, 200), (D + 1, 200))
        np.testing.assert_array_equal(p.G, 0)
        # 6,000 uniform draws: their deviation is within 5 % of the law's
        np.testing.assert_allclose(
            np.std(p.C), np.sqrt(np.mean(np.asarray(plain.weights[0]) ** 2)), rtol=0.05
        )
        assert abs(np.mean(p.C)) < 0.05 * np.std(p.C)

    def test_no_condition_is_rejected(self):
        with pytest.raises(ValueError, match=r"^condition_dim: expected an integer >= 1; got 0"):
            ConditionalResNet.create(D, 0, 4, 1, jax.random.key(0))


BAD = {
    "C": lambda: ConditionalResNet(random_resnet(D), np.zeros((5, K)), np.zeros((D + 1, K))),
    "G": lambda: ConditionalResNet(random_resnet(D), np.zeros((6, K)), np.zeros((D, K))),
    "W": lambda: ConditionalGaussian.solve(MEAN, np.zeros((K, D)), COV, ALPHA),
    "shift_slope": lambda: ConditionalGaussian(
        conditional_gaussian().base, np.zeros((D, K)), np.zeros((D, 1))
    ),
}


@pytest.mark.parametrize(("name", "make"), BAD.items(), ids=BAD)
def test_arrays_of_the_wrong_shape_are_rejected(name, make):
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        make()


def test_a_target_whose_mean_moves_is_met_under_every_condition():
    """The closed form at each c is that of the unconditional problem with that c's means."""
    rng = np.random.default_rng(3)
    mean, end = rng.standard_normal((2, 2))
    W, gain = rng.standard_normal((2, 2, 3))
    cov, end_cov = np.array([[2.0, 0.3], [0.3, 0.5]]), np.array([[0.4, -0.1], [-0.1, 1.5]])
    with precision("float64"):
        found = ConditionalGaussian.solve(mean, W, cov, 7.0, end, end_cov, gain)
        x = rng.standard_normal((5, 2))
        for c in rng.standard_normal((3, 3)):
            one = GaussianBase.solve(mean + W @ c, cov, 7.0, end + gain @ c, end_cov)
            for t in (0.0, 0.6):
                given = found.given(c)
                np.testing.assert_allclose(given.gradient(x, t), one.gradient(x, t), rtol=1e-10)
