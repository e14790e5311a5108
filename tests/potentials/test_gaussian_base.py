"""The Gaussian base against SPEC 2.1 in NumPy, autodiff, the HJB equation and the reference."""

import jax
import numpy as np
import pytest

from otflow.potentials import GaussianBase
from otflow.reference import gaussian
from otflow.schemes import RK4
from otflow.support.precision import precision

POINTS = 5
ALPHAS = [0.02, 1.0, 300.0]


def problem(dim, seed=0):
    """A mean and a covariance with distinct axes."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((dim, dim))
    return rng.standard_normal(dim), root @ root.T + 0.2 * np.eye(dim)


def draws(dim):
    rng = np.random.default_rng(1)
    return 2 * rng.standard_normal((POINTS, dim)), np.linspace(0, 1, POINTS)


def by_numpy(mean, cov, alpha, x, t):
    """SPEC 2.1 as written at one point: value, grad_x, Hessian."""
    variance, U = np.linalg.eigh(cov)
    sig = np.sqrt(variance)
    s = (sig + np.sqrt(sig**2 + 4 * alpha * (1 + alpha))) / (2 * (1 + alpha))
    c = s / sig - 1
    B = U @ np.diag(c / (1 + t * c)) @ U.T
    delta = mean / (1 + alpha) - mean
    r = x - mean - t * delta
    value = -0.5 * r @ B @ r - delta @ x + t * delta @ delta / 2
    return value, -B @ r - delta, -B


@jax.jit
def _closed_forms(phi, x, t):
    with_laplacian, with_hessian = phi.gradient_and_laplacian(x, t), phi.gradient_and_hessian(x, t)
    return {
        "value": phi.value(x, t),
        "gradient": phi.gradient(x, t),
        "gradient beside the Laplacian": with_laplacian.gradient,
        "gradient beside the Hessian": with_hessian.gradient,
        "laplacian": with_laplacian.laplacian,
        "hessian": with_hessian.hessian,
    }


def closed_forms(phi, x, t):
    """All at once, in NumPy, for x (POINTS, d) or one point, and one t or one for each."""
    x, t = np.broadcast_to(x, (POINTS, phi.dim)), np.broadcast_to(t, POINTS)
    return {name: np.asarray(form) for name, form in _closed_forms(phi, x, t).items()}


@jax.jit
def by_autodiff(phi, s):
    """Gradient and Hessian in (x, t) from the value alone; s (n, d+1)."""

    def value(s):
        return phi.value(s[None, :-1], s[-1])[0]

    return jax.vmap(jax.grad(value))(s), jax.vmap(jax.hessian(value))(s)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dim", [1, 2, 7])
class TestClosedForms:
    """Tolerance: float64 rounding of sums of some d^2 terms of size 10 to 100."""

    def test_formulas_of_the_specification(self, dim, alpha):
        mean, cov = problem(dim)
        x, t = draws(dim)
        rows = [by_numpy(mean, cov, alpha, xi, ti) for xi, ti in zip(x, t, strict=True)]
        value, gradient, hessian = (np.array(part) for part in zip(*rows, strict=True))
        got = closed_forms(GaussianBase.solve(mean, cov, alpha), x, t)
        np.testing.assert_allclose(got["value"], value, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(got["gradient"][:, :-1], gradient, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(got["hessian"], hessian, rtol=1e-10, atol=1e-11)
        trace = hessian.trace(axis1=1, axis2=2)
        np.testing.assert_allclose(got["laplacian"], trace, rtol=1e-10, atol=1e-11)

    def test_autodiff_of_the_value(self, dim, alpha):
        phi, (x, t) = GaussianBase.solve(*problem(dim), alpha), draws(dim)
        gradient, hessian = by_autodiff(phi, np.column_stack([x, t]))
        hessian = np.asarray(hessian)[:, :-1, :-1]
        got = closed_forms(phi, x, t)
        for name in ("gradient", "gradient beside the Laplacian", "gradient beside the Hessian"):
            np.testing.assert_allclose(got[name], gradient, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(got["hessian"], hessian, rtol=1e-10, atol=1e-11)
        trace = hessian.trace(axis1=1, axis2=2)
        np.testing.assert_allclose(got["laplacian"], trace, rtol=1e-10, atol=1e-11)

    def test_central_differences(self, dim, alpha):
        """Steps of 1e-5: truncation 1e-10 times a third derivative of some 1e2; 1e-7."""
        phi, (x, t) = GaussianBase.solve(*problem(dim), alpha), draws(dim)
        gradient, step = closed_forms(phi, x, t)["gradient"], 1e-5
        for j, e in enumerate(step * np.eye(dim + 1)):
            up, down = (closed_forms(phi, x + z * e[:-1], t + z * e[-1])["value"] for z in (1, -1))
            difference = (up - down) / (2 * step)
            np.testing.assert_allclose(gradient[:, j], difference, rtol=1e-7, atol=1e-7)

    def test_satisfies_the_hamilton_jacobi_bellman_equation(self, dim, alpha):
        """d_t Phi by autodiff of the value: 1e-12 of the larger of its two terms."""
        phi, (x, t) = GaussianBase.solve(*problem(dim), alpha), draws(dim)
        slopes, _ = by_autodiff(phi, np.column_stack([x, t]))
        time_slope = np.asarray(slopes)[:, -1]
        gradient = closed_forms(phi, x, t)["gradient"]
        half_speed = 0.5 * np.sum(gradient[:, :-1] ** 2, axis=1)
        scale = 1e-12 * np.maximum(1, half_speed)
        np.testing.assert_array_less(np.abs(time_slope - half_speed), scale)
        np.testing.assert_array_less(np.abs(gradient[:, -1] - half_speed), scale)

    def test_straight_lines_at_constant_speed_end_at_the_reference_map(self, dim, alpha):
        mean, cov = problem(dim)
        phi, exact = GaussianBase.solve(mean, cov, alpha), gaussian(mean, cov, alpha)
        x, _ = draws(dim)
        ends = exact.map(x)
        for t in (0.0, 0.4, 1.0):
            v = -closed_forms(phi, x + t * (ends - x), t)["gradient"][:, :-1]
            np.testing.assert_allclose(v, ends - x, rtol=1e-10, atol=1e-11)

    def test_rk4_is_exact_but_for_the_log_determinant(self, dim, alpha):
        """Two steps hit the map and its cost to rounding: there is nothing to integrate."""
        mean, cov = problem(dim)
        phi, exact = GaussianBase.solve(mean, cov, alpha), gaussian(mean, cov, alpha)
        x, _ = draws(dim)
        pushed = pushed_by_rk4(phi, x)
        ends = exact.map(x)
        np.testing.assert_allclose(pushed.points, ends, rtol=1e-10, atol=1e-10)
        half_squared = 0.5 * np.sum((ends - x) ** 2, axis=1)
        np.testing.assert_allclose(pushed.transport, half_squared, rtol=1e-10)
        assert np.max(pushed.hjb) <= 1e-12 * max(1.0, half_squared.max())


@jax.jit
def pushed_by_rk4(phi, x):
    return RK4(2).push(phi, x)


def other(dim):
    """Mean and covariance of a target whose axes are not the data's."""
    return problem(dim, seed=5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dim", [1, 2, 7])
class TestBetweenTwoGaussians:
    def test_to_the_standard_normal_it_is_the_specification(self, dim, alpha):
        mean, cov = problem(dim)
        plain = GaussianBase.solve(mean, cov, alpha)
        phi = GaussianBase.solve(mean, cov, alpha, np.zeros(dim), np.eye(dim))
        found, expected = (closed_forms(p, *draws(dim)) for p in (phi, plain))
        for name in ("gradient beside the Hessian", "hessian"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-10)

    def test_no_affine_map_is_better(self, dim, alpha):
        """J of x -> m + C (x - mean) in closed form: its slope by central differences vanishes."""
        (mean, cov), (m1, S1) = problem(dim), other(dim)
        phi = GaussianBase.solve(mean, cov, alpha, m1, S1)
        start = closed_forms(phi, mean, 0.0)
        C = np.eye(dim) - start["hessian"][0]
        m = mean - start["gradient"][0, :-1]

        def J(m, C):
            S, precision = C @ cov @ C.T, np.linalg.inv(S1)
            moved = C - np.eye(dim)
            transport = 0.5 * np.trace(moved @ cov @ moved.T) + 0.5 * np.sum((m - mean) ** 2)
            logs = np.linalg.slogdet(S1).logabsdet - np.linalg.slogdet(S).logabsdet
            kl = 0.5 * (np.trace(precision @ S) - dim + (m - m1) @ precision @ (m - m1) + logs)
            return (transport + alpha * kl) / (1 + alpha)

        rng, step = np.random.default_rng(3), 1e-5
        for _ in range(4):
            dm, root = rng.standard_normal(dim), rng.standard_normal((dim, dim))
            slope = J(m + step * dm, C + step * root) - J(m - step * dm, C - step * root)
            assert abs(slope) / (2 * step) < 1e-6 * max(1.0, J(m, C))
            assert J(m + 0.01 * dm, C + 0.01 * root) > J(m, C)

    def test_straight_lines_and_hjb(self, dim, alpha):
        phi, (x, _) = GaussianBase.solve(*problem(dim), alpha, *other(dim)), draws(dim)
        v = -closed_forms(phi, x, 0.0)["gradient"][:, :-1]
        for t in (0.3, 1.0):
            gradient = closed_forms(phi, x + t * v, t)["gradient"]
            np.testing.assert_allclose(-gradient[:, :-1], v, rtol=1e-8, atol=1e-9)
        slopes, _ = by_autodiff(phi, np.column_stack([x, np.full(POINTS, 0.4)]))
        half_speed = 0.5 * np.sum(closed_forms(phi, x, 0.4)["gradient"][:, :-1] ** 2, axis=1)
        np.testing.assert_allclose(np.asarray(slopes)[:, -1], half_speed, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("float64")
def test_large_alpha_is_the_map_of_bures():
    """C S0 C = S1 up to 1/alpha."""
    (mean, cov), (m1, S1) = problem(2), other(2)
    phi = GaussianBase.solve(mean, cov, 1e7, m1, S1)
    C = np.eye(2) - closed_forms(phi, mean, 0.0)["hessian"][0]
    np.testing.assert_allclose(C @ cov @ C, S1, atol=1e-5)


def test_is_not_trained():
    assert GaussianBase.trainable is False


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_follows_the_context(dtype):
    with precision(dtype):
        phi = GaussianBase.solve(*problem(2), 1.0)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(phi)} == {dtype}
        assert phi.dim == 2


EYE = np.eye(2)
BAD = {
    "alpha zero": ("alpha", np.zeros(2), EYE, 0.0),
    "alpha negative": ("alpha", np.zeros(2), EYE, -1.0),
    "alpha nan": ("alpha", np.zeros(2), EYE, np.nan),
    "alpha infinite": ("alpha", np.zeros(2), EYE, np.inf),
    "mean a scalar": ("mean, cov", 0.0, EYE, 1.0),
    "mean of another size": ("mean, cov", np.zeros(3), EYE, 1.0),
    "cov not square": ("mean, cov", np.zeros(2), np.ones((2, 3)), 1.0),
    "mean not finite": ("mean", np.array([0, np.nan]), EYE, 1.0),
    "cov not finite": ("cov", np.zeros(2), np.array([[1, 0], [0, np.inf]]), 1.0),
    "cov asymmetric": ("cov", np.zeros(2), np.array([[1, 0.5], [0, 1]]), 1.0),
    "cov singular": ("cov", np.zeros(2), np.diag([1.0, 0.0]), 1.0),
    "cov indefinite": ("cov", np.zeros(2), np.diag([1.0, -1.0]), 1.0),
}


@pytest.mark.parametrize(("name", "mean", "cov", "alpha"), BAD.values(), ids=BAD)
def test_bad_arguments_are_rejected(name, mean, cov, alpha):
    with pytest.raises(ValueError, match=f"^{name}: expected .*got"):
        GaussianBase.solve(mean, cov, alpha)


BAD_ENDS = {
    "of another dimension": ("target_mean", np.zeros(3), np.eye(3)),
    "covariance indefinite": ("target_cov", np.zeros(2), np.diag([1.0, -1.0])),
    "mean not finite": ("target_mean", np.array([0, np.inf]), EYE),
    "shapes disagree": ("target_mean, target_cov", np.zeros(2), np.eye(3)),
}


@pytest.mark.parametrize(("name", "mean", "cov"), BAD_ENDS.values(), ids=BAD_ENDS)
def test_bad_targets_are_rejected(name, mean, cov):
    with pytest.raises(ValueError, match=f"^{name}: expected .*got"):
        GaussianBase.solve(np.zeros(2), EYE, 1.0, mean, cov)


@pytest.mark.parametrize("method", ["value", "gradient", "laplacian", "hessian"])
def test_points_of_another_dimension_are_rejected(method):
    phi = GaussianBase.solve(*problem(2), 1.0)
    with pytest.raises(ValueError, match=r"^x: expected shape \(n, 2\); got \(4, 3\)"):
        getattr(phi, method)(np.zeros((4, 3), np.float32), 0.0)
