"""The exact JKO scheme: closed forms, the theory's inequalities, and a minimisation of its own."""

import math

import numpy as np
import pytest
from scipy import integrate, optimize, special

from otflow.reference import (
    GaussianReference,
    gaussian,
    gradient_flow,
    jko,
    mixture_1d,
    optimal_map,
    product_mixture,
    random_rotation,
    tabulate,
    w2,
)
from otflow.reference.one_dimensional import solve_1d

MIXTURE = mixture_1d([0.4, 0.6], [-2.0, 1.5], [0.5, 0.7], math.inf)
_Q = random_rotation(2, 3)
NORMAL = gaussian([1.0, -2.0], (_Q * [0.3, 4.0]) @ _Q.T, math.inf)
PRODUCT = product_mixture(3, math.inf)


def test_the_normal_iterates_of_spec_7():
    """Mean and deviations by the formulas of SPEC 7, step by step."""
    tau, found = 0.3, jko(NORMAL, 0.3, 4)
    m, s = NORMAL.mean, NORMAL.stds
    for n, law in enumerate(found.laws):
        assert isinstance(law, GaussianReference)
        np.testing.assert_allclose(law.mean, m, rtol=1e-13)
        np.testing.assert_allclose(np.sort(law.stds), np.sort(s), rtol=1e-13)
        assert found.kl[n] == pytest.approx(
            float(np.sum((s**2 - 1) / 2 - np.log(s)) + m @ m / 2), rel=1e-12
        )
        m, s = m / (1 + tau), (s + np.sqrt(s**2 + 4 * tau * (1 + tau))) / (2 * (1 + tau))


def test_on_the_line_a_normal_law_is_the_normal_one():
    """The prox of SPEC 4 repeated, against the closed form: its panels resolve 1e-11."""
    line, closed = (
        jko(problem, 0.25, 4)
        for problem in (mixture_1d([1.0], [1.5], [0.7], math.inf), gaussian([1.5], [[0.49]], 1.0))
    )
    for name in ("kl", "half_w2_squared", "transport"):
        np.testing.assert_allclose(getattr(line, name), getattr(closed, name), rtol=1e-10)
    assert w2(line.laws[-1], gradient_flow(line.laws[0], 1.0)) == pytest.approx(
        w2(closed.laws[-1], gradient_flow(closed.laws[0], 1.0)), rel=1e-9
    )


@pytest.mark.parametrize("problem", [NORMAL, MIXTURE, PRODUCT], ids=["normal", "line", "product"])
@pytest.mark.parametrize("tau", [0.1, 2.0])
def test_contraction_and_energy(problem, tau):
    """KL is 1-convex: SPEC 7, exactly, with slack for rounding only; and no bound is empty."""
    found = jko(problem, tau, 3)
    distance = np.sqrt(found.half_w2_squared)
    assert (found.kl[1:] <= found.kl[:-1] / (1 + tau) ** 2 + 1e-10).all()
    assert (distance[1:] <= distance[:-1] / (1 + tau) + 1e-10).all()
    assert 0 <= found.dissipation <= tau * found.kl[0]
    way = [w2(a, b) ** 2 / 2 for a, b in zip(found.laws, found.laws[1:], strict=False)]
    np.testing.assert_allclose(found.transport, way, rtol=1e-8)


@pytest.mark.parametrize("problem", [NORMAL, MIXTURE], ids=["normal", "line"])
def test_first_order_in_tau(problem):
    """The distance to the gradient flow at t = 1/2 halves with tau, up to its next order."""
    errors = [w2(jko(problem, 0.5 / n, n).laws[-1], gradient_flow(problem, 0.5)) for n in (3, 6)]
    assert 1.8 < errors[0] / errors[1] < 2.0


def test_the_gradient_flow_solves_the_fokker_planck_equation():
    """d_t p = d_x (p d_x log(p / rho1)) by finite differences, off by their h^2."""
    x, h, t = np.linspace(-3, 3, 41), 1e-3, 0.4

    def log_p(x, t):
        return gradient_flow(MIXTURE, t).log_prob(x)

    def flux(x):
        slope = (log_p(x + h, t) - log_p(x - h, t)) / (2 * h)
        return np.exp(log_p(x, t)) * (slope + x)

    rate = (np.exp(log_p(x, t + h)) - np.exp(log_p(x, t - h))) / (2 * h)
    np.testing.assert_allclose(rate, (flux(x + h) - flux(x - h)) / (2 * h), atol=2e-5)


def test_a_second_step_by_another_minimiser():
    """rho_2 by L-BFGS over quantiles on a grid: KL and transport to the grid's own accuracy."""
    found, n, tau = jko(MIXTURE, 0.5, 2), 400, 0.5
    u = (np.arange(n) + 0.5) / n
    x = found.laws[1].quantile(u)

    def cost(p):
        """Of the least quantile and the logarithms of the gaps: y increases whatever they are."""
        gaps = np.exp(p[1:])
        y = p[0] + np.append(0.0, np.cumsum(gaps))
        value = 0.5 * np.mean((y - x) ** 2) + tau * np.mean(y**2) / 2
        slope = (y - x + tau * y) / n
        pulls = gaps * np.cumsum(slope[::-1])[-2::-1] - tau / (n - 1)
        return value - tau * p[1:].mean(), np.append(slope.sum(), pulls)

    start = np.append(x[0], np.log(np.diff(x)))
    options = {"maxiter": 5000, "maxfun": 5000, "ftol": 1e-14, "gtol": 1e-9}
    found_p = optimize.minimize(cost, start, jac=True, method="L-BFGS-B", options=options).x
    y = found_p[0] + np.append(0.0, np.cumsum(np.exp(found_p[1:])))
    middle = (u > 0.05) & (u < 0.95)  # a grid knows little of the tails
    np.testing.assert_allclose(y[middle], found.laws[2].quantile(u[middle]), atol=5e-3)


def test_the_end_law_is_a_density():
    """Its tails are the integral of exp(log_pdf), beyond the trusted scores too; and it inverts."""
    density = jko(MIXTURE, 0.7, 1).laws[1].density
    for a, b in [(-1.0, 0.5), (2.0, 4.0)]:
        x = np.linspace(a, b, 20_001)
        mass = integrate.simpson(np.exp(density.log_pdf(x)), x=x)
        below = np.exp(density.log_tails(np.array([a, b]))[0])
        assert mass == pytest.approx(below[1] - below[0], rel=1e-8)
    s = np.array([-30.0, -9.5, -1.0, 0.0, 3.0, 9.6, 40.0])
    x = density.quantile_of_score(s)
    assert (np.diff(x) > 0).all()
    np.testing.assert_allclose(density.normal_score(x), s, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(density.log_tails(x)[1][:-1], special.log_ndtr(-s[:-1]), rtol=1e-8)


@pytest.mark.parametrize("problem", [NORMAL, PRODUCT], ids=["normal", "product"])
def test_the_composed_map_is_where_points_go(problem):
    """All maps increase along common axes: their composition is the optimal one."""
    found, x = jko(problem, 0.5, 3), problem.sample(0, 50)
    moved = optimal_map(problem, found.laws[-1], x)
    np.testing.assert_allclose(found.map(x), moved, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: jko(MIXTURE, 0.0, 2), ValueError, "^tau: expected a finite number > 0; got 0.0"),
        (lambda: jko(MIXTURE, math.inf, 2), ValueError, "^tau: expected a finite number"),
        (lambda: jko(MIXTURE, 1.0, 0), ValueError, "^steps: expected an integer >= 1; got 0"),
        (lambda: jko(MIXTURE, 1.0, 1.5), TypeError, "^steps: expected an integer"),
        (lambda: jko("mixture", 1.0, 1), TypeError, "^problem: expected an exact reference"),
        (lambda: gradient_flow(MIXTURE, -1.0), ValueError, "^t: expected a finite number >= 0"),
        (lambda: gradient_flow(3, 1.0), TypeError, "^problem: expected an exact reference"),
        (lambda: w2(MIXTURE, NORMAL), TypeError, "^first, second: expected laws of one family"),
        (lambda: w2(NORMAL, gaussian([0, 0], [[2, 1], [1, 3]], 1)), ValueError, "^second: .*axes"),
        (lambda: w2(PRODUCT, product_mixture(2, 1.0)), ValueError, "^second: .*rotation"),
        (lambda: optimal_map(PRODUCT, PRODUCT, [[1.0]]), ValueError, "x"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_limit_of_a_table_is_not_known():
    logistic = tabulate(lambda x: -np.abs(x) - 2 * np.log1p(np.exp(-np.abs(x))))
    problem = solve_1d(logistic, math.inf)
    assert jko(problem, 1.0, 1).kl[1] < problem.panels.kl / 4
    with pytest.raises(TypeError, match=r"^problem: expected normal mixtures"):
        gradient_flow(problem, 1.0)
