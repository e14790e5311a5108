"""Convex stages: closed forms against autodiff and plain NumPy, bijections whatever the parameters.

One compiled program a subject; integrals by quadrature, far from the data too.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow import Flow
from otflow.potentials import ConditionalGaussian, ConditionalStages, ConvexStages, GaussianBase
from otflow.potentials.stages import height
from otflow.reference import gaussian
from otflow.schemes import RK4, Conforming
from otflow.support.precision import precision

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 3))
MEAN, COV = np.array([1.0, -0.5, 0.2]), np.diag([2.0, 0.6, 0.1]) + 0.05


def stages(n_steps=3, dim=3, wild=0.0, seed=0):
    """Stages of a Gaussian base; `wild` standard deviations of noise on every parameter."""
    with precision("float64"):
        base = GaussianBase.solve(MEAN[:dim], COV[:dim, :dim], 30.0)
        found = ConvexStages.create(base, n_steps, 7, jax.random.key(seed), 2, 5)
        leaves, tree = jax.tree.flatten(found.stage)
        rng = np.random.default_rng(seed)
        moved = [leaf + wild * rng.standard_normal(leaf.shape) for leaf in leaves]
        return ConvexStages(base, jax.tree.unflatten(tree, moved), found.floor)


def by_the_book(p, k, x):
    """(u_k, grad u_k, Hess u_k) at one point by the formulas of SPEC 2.2, with loops."""
    s = jax.tree.map(lambda a: np.asarray(a)[k], p.stage)
    c, e = (np.log1p(np.exp(4 * np.asarray(r))) / 4 for r in (s.ridge_heights, s.group_heights))
    h = 1 / p.n_steps
    hessian_of_base = np.asarray(p.base.hessian(np.zeros((1, x.size)), k * h))[0]
    M = s.quadratic @ s.quadratic.T + p.floor * (np.eye(x.size) - h * hessian_of_base)
    value, gradient, hessian = 0.5 * x @ M @ x + s.slope @ x, M @ x + s.slope, M.copy()
    for j, w in enumerate(s.ridges):
        a = w @ x + s.ridge_biases[j]
        value += c[j] * np.log(np.cosh(a))
        gradient = gradient + c[j] * np.tanh(a) * w
        hessian += c[j] / np.cosh(a) ** 2 * np.outer(w, w)
    for g, A in enumerate(s.terms):
        weights = np.exp(A @ x + s.term_biases[g])
        p_g = weights / weights.sum()
        value += e[g] * np.log(weights.sum())
        gradient = gradient + e[g] * A.T @ p_g
        hessian += e[g] * A.T @ (np.diag(p_g) - np.outer(p_g, p_g)) @ A
    return value, gradient, hessian


@pytest.mark.usefixtures("float64")
class TestDerivatives:
    @pytest.fixture(scope="class")
    @classmethod
    def found(cls):
        """Everything at all three times, from one program each."""
        p = stages(wild=0.7)

        def all_of(x, t):
            whole = p.gradient_and_hessian(x, t)
            return {
                "value": p.value(x, t),
                "gradient": whole.gradient,
                "hessian": whole.hessian,
                "laplacian": p.laplacian(x, t),
                "alone": p.gradient(x, t),
                "autodiff": jax.vmap(jax.grad(lambda v: p.value(v[None], t)[0]))(x),
                "second": jax.vmap(jax.jacfwd(lambda v: p.gradient(v[None], t)[0, :-1]))(x),
            }

        with precision("float64"):
            compiled = jax.jit(all_of)
            return p, [jax.device_get(compiled(X, k / 3)) for k in range(3)]

    def test_matches_the_specification(self, found):
        """Phi = (|x|^2 / 2 - u) K to rounding."""
        p, at = found
        for k in range(3):
            for i, x in enumerate(X):
                u, gradient, hessian = by_the_book(p, k, x)
                np.testing.assert_allclose(at[k]["value"][i], 3 * (x @ x / 2 - u), rtol=1e-10)
                np.testing.assert_allclose(at[k]["gradient"][i, :-1], 3 * (x - gradient), rtol=1e-9)
                np.testing.assert_allclose(
                    at[k]["hessian"][i], 3 * (np.eye(3) - hessian), rtol=1e-9, atol=1e-10
                )

    def test_matches_autodiff(self, found):
        _, at = found
        for values in at:
            np.testing.assert_allclose(values["gradient"][:, :-1], values["autodiff"], rtol=1e-9)
            np.testing.assert_allclose(values["hessian"], values["second"], rtol=1e-9, atol=1e-9)
            trace = np.trace(values["hessian"], axis1=1, axis2=2)
            np.testing.assert_allclose(values["laplacian"], trace, rtol=1e-12)
            np.testing.assert_allclose(values["alone"], values["gradient"], rtol=1e-12)
            assert not values["gradient"][:, -1].any()

    def test_the_jacobian_is_above_the_floor(self, found):
        """Eigenvalues of F^-1/2 (I - h Hess Phi) F^-1/2, to rounding."""
        p, at = found
        for k, values in enumerate(at):
            floor = p.floor * (np.eye(3) - np.asarray(p.base.hessian(X[:1], k / 3))[0] / 3)
            root = np.linalg.inv(np.linalg.cholesky(floor))
            scaled = root @ (np.eye(3) - values["hessian"] / 3) @ root.T
            assert np.linalg.eigvalsh(scaled).min() > 1 - 1e-9


def test_at_the_start_they_are_the_gaussian_solution():
    """Silent ridges and log-sum-exps have heights of 8e-5: they move points by less than 1e-2."""
    exact = gaussian(MEAN, COV, 30.0)
    flow = Flow(stages(), scheme=Conforming(3))
    np.testing.assert_allclose(flow.forward(X), exact.map(X), atol=1e-2)
    assert float(height(np.array(-2.0))) == pytest.approx(8.4e-5, rel=0.01)


class TestBijection:
    """Parameters that no training chose."""

    @pytest.mark.parametrize("n_steps", [1, 3])
    def test_the_density_in_the_plane_integrates_to_one(self, n_steps):
        """Sums over x = sinh(s), fine in the middle and 1,000 away at the edge."""
        flow = Flow(stages(n_steps, 2, wild=0.3), scheme=Conforming(n_steps))
        s = np.linspace(-7.6, 7.6, 401)
        grid = np.stack(np.meshgrid(np.sinh(s), np.sinh(s)), axis=-1).reshape(-1, 2)
        area = np.outer(np.cosh(s), np.cosh(s)).ravel() * (s[1] - s[0]) ** 2
        log_density = np.asarray(flow.log_prob(grid))
        assert np.isfinite(log_density).all()
        assert np.exp(log_density) @ area == pytest.approx(1, abs=1e-3)

    def test_every_point_of_the_target_comes_from_one(self):
        """Far ones too: the inverse is that of the map to rounding, costs agree."""
        flow = Flow(stages(wild=0.7), scheme=Conforming(3))
        y = 10.0 ** RNG.uniform(-2, 3, (40, 1)) * RNG.standard_normal((40, 3))
        pulled = flow.pull(y)
        assert np.asarray(pulled.valid).all()
        pushed = flow.push(pulled.points)
        scale = 1 + np.abs(y)
        np.testing.assert_allclose(np.asarray(pushed.points) / scale, y / scale, atol=1e-12)
        np.testing.assert_allclose(pushed.log_det, -np.asarray(pulled.log_det), rtol=1e-9)

    def test_straightness(self):
        """sum_k h |v_k - (T(x) - x)|^2, from the trajectory itself; 0 for one step."""
        flow = Flow(stages(wild=0.7), scheme=Conforming(3))
        path, pushed = np.asarray(flow.trajectories(X)), flow.push(X)
        velocity = 3 * np.diff(path, axis=0)
        bend = ((velocity - (path[-1] - path[0])) ** 2).sum(axis=2).mean(axis=0)
        np.testing.assert_allclose(pushed.straightness, bend, rtol=1e-9)
        one = Flow(stages(1, wild=0.7), scheme=Conforming(1)).push(X)
        np.testing.assert_allclose(one.straightness, 0, atol=1e-9 * np.asarray(one.transport).max())


class TestConditional:
    C = RNG.standard_normal((6, 2))

    @staticmethod
    def potential():
        with precision("float64"):
            W = np.array([[0.5, 0.0], [0.2, -1.0], [0.0, 0.3]])
            base = ConditionalGaussian.solve(MEAN, W, COV, 30.0)
            return base, ConditionalStages.create(base, 2, 5, jax.random.key(1))

    def test_at_the_start_they_are_the_gaussian_solution_of_every_condition(self):
        """Heights of 8e-5, as without a condition."""
        base, potential = self.potential()
        flow = Flow(potential, scheme=Conforming(2))
        ends = flow.forward(X, self.C)
        for i, c in enumerate(self.C):
            exact = gaussian(MEAN + np.asarray(base.W) @ c, COV, 30.0).map(X[i : i + 1])
            np.testing.assert_allclose(ends[i : i + 1], exact, atol=1e-2)

    def test_one_condition_for_all_is_that_of_each(self):
        _, potential = self.potential()
        flow = Flow(potential, scheme=Conforming(2))
        tiled = np.tile(self.C[0], (6, 1))
        expected = flow.log_prob(X, tiled)
        np.testing.assert_allclose(flow.log_prob(X, self.C[0]), expected, rtol=1e-10)
        np.testing.assert_allclose(flow.given(self.C[0]).log_prob(X), expected, rtol=1e-10)
        apart = np.asarray(flow.log_prob(X, self.C))
        assert np.abs(apart - np.asarray(expected))[1:].min() > 1e-3

    def test_shapes_are_checked(self):
        _, potential = self.potential()
        with pytest.raises(ValueError, match=r"^B: expected shape \(2, 5, 2\); got \(2, 5, 3\)"):
            ConditionalStages(potential.stages, potential.S, np.zeros((2, 5, 3)), potential.E)
        with pytest.raises(ValueError, match="condition: expected shape"):
            potential.given(None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_steps": 0}, "n_steps: expected an integer >= 1; got 0"),
        ({"width": 0}, "width: expected an integer >= 1; got 0"),
        ({"groups": 0}, "groups: expected an integer >= 1; got 0"),
        ({"floor": 1.0}, r"floor: expected a number in \(0, 1\); got 1.0"),
    ],
)
def test_sizes_are_checked(change, message):
    base = GaussianBase.solve(MEAN, COV, 30.0)
    arguments = {"n_steps": 2, "width": 3, "key": jax.random.key(0)} | change
    with pytest.raises(ValueError, match=message):
        ConvexStages.create(base, **arguments)


def test_arrays_are_checked():
    p = stages()
    wrong = jax.tree.map(lambda a: a, p.stage)
    object.__setattr__(wrong, "ridge_heights", jnp.zeros((3, 8)))
    with pytest.raises(ValueError, match=r"^ridge_heights: expected shape \(3, 7\); got \(3, 8\)"):
        ConvexStages(p.base, wrong)
    with pytest.raises(ValueError, match="ridges: expected 2 columns, the base's; got 3"):
        ConvexStages(stages(dim=2).base, p.stage)


def test_times_between_stages_are_refused():
    p = stages()
    for scheme in (RK4(3), Conforming(2)):
        with pytest.raises(ValueError, match=r"^scheme: expected Conforming\(3\)"):
            Flow(p, scheme=scheme)
        if isinstance(scheme, Conforming):
            with pytest.raises(ValueError, match="n_steps: expected 3, the potential's; got 2"):
                scheme.push(p, X)
    with pytest.raises(ValueError, match="t: expected a scalar"):
        p.value(X, np.zeros(6))


@pytest.mark.usefixtures("float64")
@pytest.mark.slow
def test_the_jacobian_of_many_columns_is_the_same(monkeypatch):
    """Beyond some columns it is built from products a point instead of the directions' squares."""
    p = stages(wild=0.7)
    found = p.step(X, 1 / 3).jacobian
    monkeypatch.setattr("otflow.potentials.stages._PACKED", 2)
    np.testing.assert_allclose(p.step(X, 1 / 3).jacobian, found, rtol=1e-12, atol=1e-13)
