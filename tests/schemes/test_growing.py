"""Cone steps: volumes against autodiff, prices and masses against the cone, inverses, the limit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from otflow.potentials import ConvexStages, GaussianBase, LiftedStages
from otflow.reference import wfr_diracs
from otflow.schemes import Conforming, Growing
from otflow.schemes.growing import _along, _angle, cone_price
from otflow.support.precision import cast, precision

K = 2


@pytest.fixture(autouse=True)
def _float64():
    with precision("float64"):
        yield


def lifted(d, seed=0):
    """Two stages that bend, of levels that differ, float64."""
    base = GaussianBase.solve(np.full(d, 0.7), np.diag(np.geomspace(0.5, 2, d)), 10.0)
    keys = jax.random.split(jax.random.key(seed), 3)
    stages = ConvexStages.create(base, K, 4, keys[0], 2, 3)
    heights = (
        0.3 * jnp.abs(jax.random.normal(keys[1], stages.stage.ridge_heights.shape)),
        0.3 * jnp.abs(jax.random.normal(keys[2], stages.stage.group_heights.shape)),
    )
    where = lambda p: (p.stage.ridge_heights, p.stage.group_heights)  # noqa: E731
    return cast(LiftedStages(eqx.tree_at(where, stages, heights), jnp.array([-0.3, 0.4])), float)


def rows(d, n=30, scale=2.0):
    return scale * np.random.default_rng(1).standard_normal((n, d))


@eqx.filter_jit
def push(scheme, potential, x):
    return scheme.push(potential, x)


@eqx.filter_jit
def pull(scheme, potential, y):
    return scheme.pull(potential, y)


@eqx.filter_jit
def at(scheme, potential, x, times):
    """Places and log-masses at several times."""
    return [scheme.at(potential, x, t) for t in times]


@pytest.fixture(scope="module", params=[(1, 1.0), (2, 0.4)], ids=["line", "plane"])
def pushed(request):
    """Potential, scheme, rows, their push and the automatic Jacobians of their ends."""
    d, delta = request.param
    potential, scheme, x = lifted(d), Growing(K, delta), rows(d)
    with precision("float64"):
        found = push(scheme, potential, jnp.asarray(x))
        end = lambda point: scheme.push(potential, point[None]).points[0]  # noqa: E731
        jacobians = eqx.filter_jit(jax.vmap(jax.jacfwd(end)))(jnp.asarray(x))
    return potential, scheme, x, found, np.asarray(jacobians)


def test_volumes_are_those_of_the_automatic_jacobian(pushed):
    *_, found, jacobians = pushed
    sign, log_det = np.linalg.slogdet(jacobians)
    np.testing.assert_array_equal(sign, 1)
    np.testing.assert_allclose(found.log_det, log_det, atol=1e-13)  # rounding


def test_the_inverse_finds_the_rows_and_any_others(pushed):
    potential, scheme, x, found, _ = pushed
    back = pull(scheme, potential, found.points)
    far = pull(scheme, potential, jnp.asarray(3 * x))
    again = push(scheme, potential, far.points)
    np.testing.assert_allclose(back.points, x, atol=1e-11)
    np.testing.assert_allclose(back.log_mass, -found.log_mass, atol=1e-9)
    np.testing.assert_allclose(back.log_det, -found.log_det, atol=1e-9)
    assert back.valid.all()
    np.testing.assert_allclose(again.points, 3 * x, atol=1e-10)


def test_a_step_is_the_shortest_way_on_the_cone(pushed):
    """One step's price is that of its two Diracs, wherever it is less than pi/2 of an angle."""
    potential, _, x, *_ = pushed
    scheme = Growing(1, 0.9)
    one = LiftedStages(_first(potential), potential.level[:1])
    found = jax.device_get(push(scheme, one, jnp.asarray(x)))
    same = jax.jit(cone_price, static_argnums=2)(found.points - x, found.log_mass, 0.9)
    moved = np.linalg.norm(found.points - x, axis=1)
    exact = [
        wfr_diracs(d, 1.0, float(np.exp(m)), 0.9)
        for d, m in zip(moved, found.log_mass, strict=True)
    ]
    assert moved.max() < np.pi * 0.9
    np.testing.assert_allclose(found.transport, exact, rtol=1e-10)
    np.testing.assert_allclose(same, exact, rtol=1e-10)


def _first(potential):
    """The first of the stages alone: the base decides a floor by the number of stages."""
    stages = potential.stages
    first = jax.tree.map(lambda a: a[:1], stages.stage)
    return ConvexStages(stages.base, first, stages.floor)


def test_on_the_way_mass_and_place_join_the_steps(pushed):
    potential, scheme, x, found, _ = pushed
    x = jnp.asarray(x)
    (end, log_mass), start = at(scheme, potential, x, (1.0, 0.0))
    slow = Growing(K, 3.0)  # a line that all but meets the cone's apex turns at once
    before, after = at(slow, potential, x, (0.5 - 1e-9, 0.5 + 1e-9))
    np.testing.assert_allclose(end, found.points, atol=1e-13)
    path = eqx.filter_jit(scheme.trajectories)(potential, x)
    np.testing.assert_allclose(path[-1], end, atol=1e-13)
    np.testing.assert_allclose(log_mass, found.log_mass, atol=1e-12)
    np.testing.assert_allclose(before[0], after[0], atol=1e-7)
    np.testing.assert_allclose(before[1], after[1], atol=1e-5)
    np.testing.assert_array_equal(start[0], x)


def test_the_start_has_the_velocity_and_growth_of_phi(pushed):
    """v = -grad Phi and g = -Phi / delta^2, Phi from the share: a derivative, and HJB's sign."""
    potential, _, x, *_ = pushed
    t, scheme, x = 1e-6, Growing(K, 3.0), jnp.asarray(x)
    ((moved, log_mass),) = at(scheme, potential, x, (t,))
    both = eqx.filter_jit(lambda p, x: (p.value(x, 0.0), p.gradient(x, 0.0)))
    value, gradient = jax.device_get(both(potential, x))
    share = np.exp(-value / K / (2 * scheme.delta**2))
    Phi = 2 * scheme.delta**2 * (1 - share) * K
    v = -share[:, None] * gradient[:, :-1]  # -grad Phi
    np.testing.assert_allclose(log_mass / t, -Phi / scheme.delta**2, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose((moved - x) / t, v, rtol=1e-3, atol=1e-3)


def test_as_delta_grows_it_is_the_conforming_scheme():
    """The difference falls as delta^-2."""
    potential, x = lifted(2), rows(2, scale=1.0)
    plain = jax.device_get(push(Conforming(K), potential, jnp.asarray(x)))
    errors = []
    for delta in (1e2, 1e3):
        found = jax.device_get(push(Growing(K, delta), potential, jnp.asarray(x)))
        pairs = [(found.points, plain.points), (found.log_det, plain.log_det)]
        pairs += [(found.transport, plain.transport), (found.log_mass, 0.0)]
        errors.append([float(abs(a - b).max()) for a, b in pairs])
    assert np.max(errors[1]) < 1e-3
    np.testing.assert_allclose(np.divide(*errors), 100, rtol=0.02)


def test_mass_balances_to_rounding():
    """The arriving density's integral over the line is the growth's mean at the start."""
    potential, scheme = lifted(1), Growing(K, 4.0)
    grid = np.linspace(-12, 12, 2001)[:, None]
    weights = np.exp(-0.5 * grid[:, 0] ** 2) / np.sqrt(2 * np.pi) * (grid[1, 0] - grid[0, 0])
    at_start = weights @ np.exp(push(scheme, potential, jnp.asarray(grid)).log_mass)
    ends = push(scheme, potential, jnp.asarray(grid)).points[[0, -1], 0]
    y = np.linspace(float(ends[0]), float(ends[1]), 6001)[:, None]
    found = jax.device_get(pull(scheme, potential, jnp.asarray(y)))
    x = np.asarray(found.points)[:, 0]
    density = np.exp(-0.5 * x**2 - found.log_mass + found.log_det) / np.sqrt(2 * np.pi)
    assert density.sum() * (y[1, 0] - y[0, 0]) == pytest.approx(float(at_start), rel=1e-12)


def test_growth_alone_and_motion_alone():
    """A constant Phi moves nothing; m = a^2. At rest everything vanishes, gradients too."""
    rest = GaussianBase.solve(np.zeros(2), np.eye(2), 1.0)
    stages = cast(ConvexStages.create(rest, 1, 2, jax.random.key(0), 1, 2), float)
    scheme = Growing(1, 1.5)
    x, silent = jnp.asarray(rows(2, 5)), (jnp.full((1, 2), -50.0), jnp.full((1, 1), -50.0))
    where = lambda p: (p.stage.ridge_heights, p.stage.group_heights)  # noqa: E731
    still = eqx.tree_at(where, stages, silent)
    grown = push(scheme, LiftedStages(still, jnp.array([0.7])), x)
    price = lambda level: push(scheme, LiftedStages(still, level), x).transport.sum()  # noqa: E731
    slope = jax.jit(jax.grad(price))(jnp.zeros(1))
    np.testing.assert_allclose(grown.points, x, atol=1e-6)
    np.testing.assert_allclose(grown.log_mass, -0.7 / 1.5**2, rtol=1e-6)  # heights of e^-50
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("z", [1e-3, 0.14142, 0.14143, 1.0, 30.0])
def test_series_and_closed_forms_meet(z):
    """Against their integrals: arctan z = int_0^1 z / (1 + (z s)^2), and so its other ratio."""
    angle = quad(lambda s: 1 / (1 + (z * s) ** 2), 0, 1, epsabs=0, epsrel=1e-13)[0]
    along = quad(lambda s: (1 - s**2) / (1 + (z * s) ** 2), 0, 1, epsabs=0, epsrel=1e-13)[0]
    tangent = jnp.array([z**2])
    assert float(_angle(tangent)[0]) == pytest.approx(angle, rel=1e-13)
    assert float(_along(tangent, _angle(tangent))[0]) == pytest.approx(along, rel=1e-11)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 1.0), ValueError, r"^n_steps: expected an integer >= 1"),
        ((1, 0.0), ValueError, r"^delta: expected a finite number > 0"),
        ((1, np.inf), ValueError, r"^delta: expected a finite number > 0"),
        ((1, "1"), TypeError, r"^delta: expected a number > 0"),
    ],
)
def test_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Growing(*arguments)


def test_a_potential_of_other_steps_is_refused():
    with pytest.raises(ValueError, match=r"^n_steps: expected 2, the potential's; got 3"):
        Growing(3, 1.0).push(lifted(1), jnp.zeros((1, 1)))
    with pytest.raises(TypeError, match=r"^potential: expected stages; got GaussianBase"):
        Growing(1, 1.0).push(GaussianBase.solve(np.zeros(1), np.eye(1), 1.0), jnp.zeros((1, 1)))
    with pytest.raises(ValueError, match=r"^level: expected shape"):
        LiftedStages(lifted(1).stages, jnp.zeros(3))
