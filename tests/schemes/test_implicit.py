"""Derivatives of the inverse, in points and parameters: the implicit function's, in both modes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow.potentials import ConvexStages, GaussianBase
from otflow.schemes import RK4, Conforming
from otflow.support.precision import precision
from tests.helpers import random_resnet

RNG = np.random.default_rng(0)
Y, V = RNG.standard_normal((2, 4, 2))


def stages():
    base = GaussianBase.solve(Y.mean(0), np.cov(Y.T), 3.0)
    made = ConvexStages.create(base, 3, 4, jax.random.key(0))
    raw = (made.stage.ridge_heights, made.stage.group_heights)
    heights = lambda p: (p.stage.ridge_heights, p.stage.group_heights)  # noqa: E731
    return eqx.tree_at(heights, made, [raw[0] + 2, raw[1] + 2])  # nothing is silent


CASES = {
    "stages": (stages, Conforming(3)),
    "conforming": (lambda: random_resnet(2, depth=1, scale=0.4), Conforming(3)),
    "rk4": (lambda: random_resnet(2, depth=0, scale=0.4), RK4(1)),
}


@pytest.fixture(autouse=True)
def _in_float64():
    with precision("float64"):
        yield


@pytest.mark.parametrize(
    ("make", "scheme"),
    [
        # one rule is all of theirs: schemes/implicit.py
        pytest.param(*case, id=name, marks=[pytest.mark.slow] * (name == "conforming"))
        for name, case in CASES.items()
    ],
)
def test_both_modes_against_central_differences(make, scheme):
    """One direction of points and parameters; step 1e-6 leaves 1e-8.

    Reverse mode is the transpose: <u, J v> = <J' u, v> to rounding.
    """
    moving, rest = eqx.partition(make(), eqx.is_inexact_array)
    frozen = lambda p: p.base if isinstance(p, ConvexStages) else ()  # noqa: E731
    at = (moving, jnp.asarray(Y))
    direction = jax.tree.map(lambda a: jnp.asarray(RNG.standard_normal(a.shape)), at)
    small = jax.tree.map(lambda v: 0.1 * v, frozen(direction[0]))
    direction = (eqx.tree_at(frozen, direction[0], small), direction[1])

    def pull(moving, y):
        found = scheme.pull(eqx.combine(moving, rest), y)
        return found.points, found.log_det, found.transport

    @jax.jit
    def both(at, direction, weights):
        value, pulled_back = jax.vjp(pull, *at)
        return value, jax.jvp(pull, at, direction)[1], pulled_back(weights)

    def moved(by):
        there = jax.tree.map(lambda a, v: a + by * v, at, direction)
        return both(there, direction, weights)[0]

    weights = tuple(jnp.asarray(RNG.standard_normal(s)) for s in ((4, 2), (4,), (4,)))
    _, found, slopes = both(at, direction, weights)
    for up, down, slope in zip(moved(1e-6), moved(-1e-6), found, strict=True):
        assert np.abs(slope).max() > 1e-2
        np.testing.assert_allclose(slope, (up - down) / 2e-6, rtol=1e-6, atol=1e-7)
    forwards = sum(np.vdot(w, s) for w, s in zip(weights, found, strict=True))
    pairs = zip(jax.tree.leaves(slopes), jax.tree.leaves(direction), strict=True)
    assert sum(np.vdot(s, v) for s, v in pairs) == pytest.approx(forwards, rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "scheme"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("outer", [jax.jacfwd, jax.jacrev])
def test_second_derivatives(make, scheme, outer):
    """However the first was taken: those of its central differences."""
    potential = make()
    slope = jax.jit(jax.grad(lambda y: scheme.pull(potential, y[None]).points[0, 0]))
    found = jax.jit(outer(slope))(Y[0])
    for j, e in enumerate(1e-6 * np.eye(2)):
        expected = (slope(Y[0] + e) - slope(Y[0] - e)) / 2e-6
        np.testing.assert_allclose(found[j], expected, rtol=1e-6, atol=1e-8)


def test_points_without_an_inverse_have_no_slope():
    """A map that folds: 0 there, and the others' slopes unharmed, so that sums have one."""
    potential, scheme = random_resnet(2, depth=0, seed=5, scale=1.6), Conforming(1)
    y = 3 * RNG.standard_normal((40, 2))

    @jax.jit
    def pull(y):
        found, back = jax.vjp(lambda y: scheme.pull(potential, y).points, y)
        return scheme.pull(potential, y).valid, back(jnp.ones_like(found))[0]

    valid, slopes = map(np.asarray, pull(y))
    assert 0 < valid.sum() < 40
    assert (slopes[~valid] == 0).all()
    assert np.isfinite(slopes).all()
    assert (np.abs(slopes[valid]).max(axis=1) > 0).all()


@pytest.mark.parametrize("make", [stages, CASES["conforming"][0]], ids=["stages", "network"])
def test_programs_do_not_grow_with_the_steps(make):
    """Pull, trajectories and the violation at 20 and 60 steps: as many operations."""

    def size(n_steps):
        scheme = Conforming(n_steps)
        potential = make()
        if potential.bijective:
            base = potential.base
            potential = ConvexStages.create(base, n_steps, 4, jax.random.key(0))

        def everything(y):
            q = scheme.pull(potential, y)
            return q, scheme.trajectories(potential, y), scheme.violation(potential, y)

        return str(jax.make_jaxpr(everything)(Y)).count("=")

    assert size(20) == size(60)  # rematerialised, both
