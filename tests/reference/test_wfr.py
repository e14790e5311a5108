"""Transport with growth: closed forms against the static form, and that against another solver."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from otflow.reference import discrete, wfr_diracs, wfr_discrete, wfr_gaussians


class TestDiracs:
    @pytest.mark.parametrize(
        ("distance", "m0", "m1", "delta"),
        [(1.0, 1.0, 1.0, 1.0), (2.0, 3.0, 0.5, 0.8), (9.0, 2.0, 1.0, 0.7), (0.0, 1.0, 4.0, 2.0)],
    )
    def test_the_static_form(self, distance, m0, m1, delta):
        found = wfr_discrete([[0.0]], [[distance]], [m0], [m1], delta=delta)
        exact = wfr_diracs(distance, m0, m1, delta)
        assert found.transport == pytest.approx(exact, abs=1e-8 * delta**2 * (m0 + m1))

    def test_the_best_of_the_ways_on_the_cone(self):
        """Free positions and roots of masses in between: a chain of points, minimised."""
        delta, n, m1 = 0.6, 24, 2.0

        def price(z):
            x = np.concatenate([[0.0], z[: n - 1], [1.0]])
            r = np.concatenate([[1.0], z[n - 1 :], [math.sqrt(m1)]])
            middle = 0.5 * (r[1:] + r[:-1])
            speed = np.diff(r) ** 2 + (middle * np.diff(x) / (2 * delta)) ** 2
            return 2 * delta**2 * n * speed.sum()

        line = np.arange(1, n) / n
        found = minimize(price, np.concatenate([line, 1 + line * (math.sqrt(m1) - 1)]))
        assert found.fun == pytest.approx(wfr_diracs(1.0, 1.0, m1, delta), rel=1e-3)  # n^-2

    def test_small_distances_and_large_deltas(self):
        assert wfr_diracs(1e-4, 2.0, 2.0, 1.0) == pytest.approx(1e-8, rel=1e-6)
        assert wfr_diracs(3.0, 1.0, 1.0, 1e4) == pytest.approx(4.5, rel=1e-6)

    def test_refused(self):
        with pytest.raises(ValueError, match=r"^mass_y: expected a finite number >= 0; got -1"):
            wfr_diracs(1.0, 1.0, -1.0, 1.0)


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((25, 2)), 1 + rng.standard_normal((20, 2))
    return x, y, rng.uniform(0.1, 1, 25), rng.uniform(0.1, 2, 20)


class TestDiscrete:
    @pytest.mark.parametrize("delta", [0.3, 1.0, 4.0])
    def test_the_gap_and_the_optimality_conditions(self, points, delta):
        found = wfr_discrete(*points, delta=delta)
        mass = points[2].sum() + points[3].sum()
        assert 0 <= found.duality_gap <= 1e-9 * 2 * delta**2 * mass
        angle = np.linalg.norm(points[0][:, None] - points[1], axis=2) / (2 * delta)
        matched = np.where(angle < np.pi / 2, np.cos(angle) ** 2, 0.0)
        assert (found.share_x[:, None] * found.share_y >= matched * (1 - 1e-6)).all()
        np.testing.assert_allclose(found.plan.sum(axis=1), points[2] * found.share_x, atol=1e-6)
        np.testing.assert_allclose(found.plan.sum(axis=0), points[3] * found.share_y, atol=1e-6)

    def test_another_solver(self, points):
        """POT's multiplicative iterations of the same static form, from another start."""
        ot = pytest.importorskip("ot")
        x, y, a, b = points
        delta = 2.0  # all pairs are near enough
        angle = np.linalg.norm(x[:, None] - y, axis=2) / (2 * delta)
        cost = -2 * np.log(np.cos(angle))
        plan = ot.unbalanced.mm_unbalanced(a, b, cost, 1.0, div="kl", numItermax=20_000)
        kl = sum(
            np.sum(s * np.log(s / m) - s + m)
            for s, m in ((plan.sum(axis=1), a), (plan.sum(axis=0), b))
        )
        value = 2 * delta**2 * (np.sum(plan * cost) + kl)
        assert wfr_discrete(*points, delta=delta).transport == pytest.approx(value, rel=1e-6)

    def test_as_delta_grows_it_is_optimal_transport(self):
        rng = np.random.default_rng(1)
        x, y = rng.standard_normal((15, 2)), rng.standard_normal((15, 2))
        mass = np.full(15, 1 / 15)
        exact = discrete(x, y).half_w2_squared
        gaps = [
            exact - wfr_discrete(x, y, mass, mass, delta=d, tolerance=1e-10).transport
            for d in (5.0, 10.0)
        ]
        assert 0 < gaps[1] < 0.02 * exact
        assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.1)  # delta^-2

    def test_points_that_are_too_far_die(self):
        x, y = [[0.0], [50.0]], [[0.5]]
        found = wfr_discrete(x, y, [1.0, 2.0], [1.5], delta=1.0)
        assert found.transport == pytest.approx(4.0 + wfr_diracs(0.5, 1.0, 1.5, 1.0), rel=1e-8)
        np.testing.assert_allclose(found.growth(), [1.5, 0.0], rtol=1e-7)
        assert found.map()[0] == pytest.approx(0.5)
        assert np.isnan(found.map()[1])
        none = wfr_discrete([[0.0]], [[50.0]], [1.0], [2.0], delta=1.0, alpha=3.0)
        assert none.transport == pytest.approx(2 + 2 * 3 * -math.expm1(-2 / 3))

    def test_a_finite_penalty(self, points):
        """From below, to the limit; against the price minimised over ends of two Diracs."""
        values = [
            wfr_discrete(*points, delta=1.0, alpha=a).transport for a in (1.0, 30.0, math.inf)
        ]
        assert values[0] < values[1] < values[2] < values[1] + 3
        found = wfr_discrete([[0.0]], [[1.0]], [1.0], [3.0], delta=0.7, alpha=0.5).transport
        ends = np.linspace(0.2, 3, 200_001)
        price = 2 * 0.7**2 * (1 + ends - 2 * np.sqrt(ends) * math.cos(1 / 1.4))
        assert found == pytest.approx((price + 0.5 * (ends * np.log(ends / 3) - ends + 3)).min())

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"y": [[1.0, 2.0]]}, ValueError, r"^y: expected 1 columns, those of x; got 2"),
            ({"mass_x": [0.0]}, ValueError, r"^mass_x: expected numbers > 0; got 0"),
            ({"mass_y": [1.0, 1.0]}, ValueError, r"^mass_y: expected shape"),
            ({"delta": -1.0}, ValueError, r"^delta: expected a finite number > 0"),
            ({"alpha": 0.0}, ValueError, r"^alpha: expected a number > 0"),
            ({"x": [[np.nan]]}, ValueError, r"^x: expected finite numbers"),
        ],
    )
    def test_refused(self, change, error, message):
        given = {"x": [[0.0]], "y": [[1.0]], "mass_x": [1.0], "mass_y": [1.0], "delta": 1.0}
        with pytest.raises(error, match=message):
            wfr_discrete(**(given | change))


class TestGaussians:
    def test_diracs_where_the_covariance_vanishes(self):
        found = wfr_gaussians([0.0], [1.0], [[1e-10]], delta=0.7, mass_y=2.0)
        assert found.transport == pytest.approx(wfr_diracs(1.0, 1.0, 2.0, 0.7), rel=1e-8)

    def test_as_delta_grows_it_is_the_translation(self):
        found = wfr_gaussians([0.0, 1.0], [2.0, 3.0], np.diag([0.5, 2.0]), delta=1e3)
        assert found.transport == pytest.approx(4.0, rel=1e-4)
        np.testing.assert_allclose(found.displacement, [2.0, 2.0], rtol=1e-4)

    @pytest.mark.parametrize(("delta", "mass"), [(1.0, 1.0), (0.5, 3.0)])
    def test_what_arrives_is_the_second_gaussian(self, delta, mass):
        """Its density by the change of variables, at rows, in two dimensions."""
        cov = np.array([[0.5, 0.2], [0.2, 0.3]])
        found = wfr_gaussians([0.0, 1.0], [1.2, 0.4], cov, delta=delta, mass_x=2.0, mass_y=mass)
        x = found.sample(0, 50)
        inverse = np.linalg.inv(cov)
        quadratic = lambda r: 0.5 * np.einsum("ni,ij,nj->n", r, inverse, r)  # noqa: E731
        arrives = math.log(2.0) - quadratic(x - found.mean_x) + found.log_growth(x)
        wanted = math.log(mass) - quadratic(found.map(x) - found.mean_y)
        np.testing.assert_allclose(arrives, wanted, atol=1e-10)

    def test_the_static_form_on_a_grid(self):
        found = wfr_gaussians([0.0], [1.0], [[0.25]], delta=1.0, mass_y=1.5)
        x = np.linspace(-3.5, 3.5, 120)[:, None]
        mass = np.exp(-2 * x[:, 0] ** 2)
        mass /= mass.sum()
        grid = wfr_discrete(x, x + 1, mass, 1.5 * mass, delta=1.0, tolerance=1e-7)
        assert found.transport == pytest.approx(grid.transport, rel=1e-3)  # the grid's

    def test_equal_gaussians_only_grow(self):
        found = wfr_gaussians([1.0], [1.0], [[2.0]], delta=1.5, mass_x=1.0, mass_y=4.0)
        assert found.transport == pytest.approx(2 * 1.5**2)
        np.testing.assert_allclose(found.log_growth([[0.0], [5.0]]), math.log(4.0))

    def test_refused(self):
        with pytest.raises(ValueError, match=r"^cov: expected a symmetric positive definite"):
            wfr_gaussians([0.0], [1.0], [[-1.0]], delta=1.0)
        with pytest.raises(ValueError, match=r"^mass_x: expected a finite number > 0"):
            wfr_gaussians([0.0], [1.0], [[1.0]], delta=1.0, mass_x=0.0)
