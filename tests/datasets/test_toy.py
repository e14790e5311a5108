"""The toy laws: shapes, seeds, laws against closed forms and scikit-learn's generators."""

import numpy as np
import pytest
from scipy import integrate, special, stats

from otflow import datasets
from otflow.datasets import TOY_NAMES, toy

N = 20_000
STANDARD_ERRORS = 5.0  # the seeds are fixed: a correct law cannot fail by chance on a rerun

DENSITIES = {
    "8gaussians": (datasets.eight_gaussians, datasets.eight_gaussians_log_prob),
    "circles": (datasets.circles, datasets.circles_log_prob),
    "checkerboard": (datasets.checkerboard, datasets.checkerboard_log_prob),
}


def assert_mean(values: np.ndarray, expected: float) -> None:
    """Compare a sample mean with its exact value, in standard errors."""
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - expected) < STANDARD_ERRORS * error


@pytest.mark.parametrize("name", TOY_NAMES)
def test_shape_dtype_and_seed(name: str) -> None:
    for n in (1, 7, 100):
        x = toy(name, n, 3)
        assert x.shape == (n, 2)
        assert x.dtype == np.float64
        assert np.all(np.isfinite(x))
    np.testing.assert_array_equal(toy(name, 50, 3), toy(name, 50, 3))
    assert not np.any(toy(name, 50, 3) == toy(name, 50, 4))


@pytest.mark.parametrize("name", TOY_NAMES)
def test_rows_are_in_no_order(name: str) -> None:
    x = toy(name, N, 0)
    for column in x.T:
        product = (column[1:] - column.mean()) * (column[:-1] - column.mean())
        assert_mean(product, 0.0)
    first, second = x[: N // 2], x[N // 2 :]
    assert stats.ks_2samp(first[:, 0], second[:, 0]).pvalue > 1e-3


def test_names_dispatch_to_their_samplers() -> None:
    assert TOY_NAMES == (
        "8gaussians", "swissroll", "moons", "circles", "pinwheel", "2spirals", "checkerboard",
    )  # fmt: skip
    samplers = (
        datasets.eight_gaussians, datasets.swissroll, datasets.moons, datasets.circles,
        datasets.pinwheel, datasets.two_spirals, datasets.checkerboard,
    )  # fmt: skip
    for name, sampler in zip(TOY_NAMES, samplers, strict=True):
        np.testing.assert_array_equal(toy(name, 20, 1), sampler(20, 1))


def test_unknown_name_lists_the_names() -> None:
    with pytest.raises(ValueError, match="name") as caught:
        toy("rings", 10, 0)
    assert all(name in str(caught.value) for name in TOY_NAMES)


@pytest.mark.parametrize("name", TOY_NAMES)
@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (-3, ValueError), (2.0, TypeError), (True, TypeError)]
)
def test_bad_n(name: str, n: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"\bn\b"):
        toy(name, n, 0)


@pytest.mark.parametrize(
    ("seed", "error"), [(-1, ValueError), (0.5, TypeError), (False, TypeError), (None, TypeError)]
)
def test_bad_seed(seed: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"\bseed\b"):
        toy("moons", 5, seed)


@pytest.mark.parametrize("name", DENSITIES)
def test_log_prob_integrates_to_one(name: str) -> None:
    # Midpoints of cells of side 1/32 on [-8, 8]^2: spectrally accurate for the smooth densities
    # (cells six times smaller than the narrowest deviation), exact for the checkerboard, whose
    # squares are unions of cells. What lies outside is below 1e-15.
    side = np.arange(-8, 8, 1 / 32) + 1 / 64
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    total = np.sum(np.exp(DENSITIES[name][1](grid))) / 32**2
    assert total == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("name", DENSITIES)
def test_log_prob_is_the_law_of_the_sampler(name: str) -> None:
    # Counts in the cells of a coarse grid against the integral of the density over each cell.
    sampler, log_prob = DENSITIES[name]
    x = sampler(N, 11)
    edges = np.linspace(-5, 5, 11)
    counts = np.histogram2d(x[:, 0], x[:, 1], bins=[edges, edges])[0]
    fine = np.arange(-5, 5, 0.05) + 0.025
    grid = np.stack(np.meshgrid(fine, fine, indexing="ij"), axis=-1).reshape(-1, 2)
    mass = np.exp(log_prob(grid)).reshape(10, 20, 10, 20).sum(axis=(1, 3)) * 0.05**2
    used = N * mass > 5
    chi_squared = np.sum((counts[used] - N * mass[used]) ** 2 / (N * mass[used]))
    assert stats.chi2.sf(chi_squared, used.sum()) > 1e-3
    assert counts[~used].sum() < 2 * N * max(1 - mass[used].sum(), 5 / N) + 20


def test_eight_gaussians_components() -> None:
    x = datasets.eight_gaussians(N, 5)
    angles = np.arange(8) * np.pi / 4
    centres = 4 / 1.414 * np.column_stack((np.cos(angles), np.sin(angles)))
    distance = np.linalg.norm(x[:, None] - centres, axis=-1)
    nearest = distance.argmin(axis=1)
    # Half the distance between neighbours is 1.08, three deviations: the cells hold 1/8 each by
    # symmetry, whatever crosses a border.
    assert stats.chisquare(np.bincount(nearest, minlength=8)).pvalue > 1e-3
    assert_mean(np.sum(x**2, axis=1), (16 + 2 * 0.25) / 1.414**2)


def test_eight_gaussians_log_prob_closed_form() -> None:
    x = np.array([[0.0, 0.0], [3.0, -2.0], [40.0, 10.0]])
    angles = np.arange(8) * np.pi / 4
    centres = 4 / 1.414 * np.column_stack((np.cos(angles), np.sin(angles)))
    components = [stats.multivariate_normal(c, (0.5 / 1.414) ** 2).logpdf(x) for c in centres]
    expected = special.logsumexp(components, axis=0) - np.log(8)
    np.testing.assert_allclose(datasets.eight_gaussians_log_prob(x), expected, rtol=1e-12)


def test_circles_log_prob_against_angular_quadrature() -> None:
    x = np.array([[0.0, 0.0], [1.4, 0.3], [-2.0, 2.3], [4.0, 0.0], [30.0, -40.0]])
    # The trapezoid rule is spectrally accurate for a periodic integrand.
    angle = np.linspace(0, 2 * np.pi, 4096, endpoint=False)
    circle = np.stack((np.cos(angle), np.sin(angle)), axis=-1)
    logs = []
    for radius in (3.0, 1.5):
        squared = np.sum((x[:, None] - radius * circle) ** 2, axis=-1)
        logs.append(special.logsumexp(-squared / (2 * 0.24**2), axis=1) - np.log(len(angle)))
    expected = special.logsumexp(logs, axis=0) - np.log(2 * 2 * np.pi * 0.24**2)
    np.testing.assert_allclose(datasets.circles_log_prob(x), expected, rtol=1e-11)


def test_circles_log_prob_across_the_switch_of_bessel_formulas() -> None:
    # z = r R / s^2 passes 50 at r = 1.92 (inner circle) and 0.96 (outer one).
    r = np.linspace(0.0, 6.0, 601)
    z = r[:, None] * np.array([3.0, 1.5]) / 0.24**2
    rings = special.i0e(z) * np.exp(-((r[:, None] - [3.0, 1.5]) ** 2) / (2 * 0.24**2))
    expected = rings.sum(axis=1) / (4 * np.pi * 0.24**2)
    x = r[:, None] * np.array([0.6, 0.8])
    np.testing.assert_allclose(np.exp(datasets.circles_log_prob(x)), expected, rtol=1e-10)


def test_checkerboard_entropy_and_support() -> None:
    np.testing.assert_array_equal(
        datasets.checkerboard_log_prob(datasets.checkerboard(N, 2)), -np.log(32.0)
    )
    outside = np.array([[-5.0, 1.0], [1.0, 4.5], [-3.0, -1.0], [4.0, 3.0]])
    assert np.all(np.isneginf(datasets.checkerboard_log_prob(outside)))


@pytest.mark.parametrize("log_prob", [d[1] for d in DENSITIES.values()])
def test_log_prob_rejects_other_shapes(log_prob) -> None:
    for shape in ((2,), (4, 3)):
        with pytest.raises((TypeError, ValueError), match=r"\bx\b"):
            log_prob(np.zeros(shape))


def curve(name: str) -> tuple[np.ndarray, float, float]:
    """Evenly weighted points of the curve under a law; the Gaussian and the uniform blur on it."""
    u = (np.arange(4000) + 0.5) / 4000
    if name == "8gaussians":
        z, gaussian, uniform = 4 * np.exp(1j * np.pi * np.arange(8) / 4) / 1.414, 0.5 / 1.414, 0.0
    elif name == "swissroll":
        t = np.pi * (1.5 + 3 * u)
        z, gaussian, uniform = t * np.exp(1j * t) / 5, 1 / 5, 0.0
    elif name == "moons":
        upper = np.exp(1j * np.pi * u)
        z = 2 * np.concatenate((upper, 1 + 0.5j - upper)) - 1 - 0.2j
        gaussian, uniform = 0.2, 0.0
    elif name == "circles":
        circle = np.exp(2j * np.pi * u)
        z, gaussian, uniform = np.concatenate((3 * circle, 1.5 * circle)), 0.24, 0.0
    else:
        s = 3 * np.pi * np.sqrt(u)
        arm = -s * np.exp(-1j * s) / 3
        # The uniform blur is one-sided: it fills [0, 1/6) on one arm and (-1/6, 0] on the other.
        z, gaussian, uniform = np.concatenate((arm, -arm - (1 + 1j) / 6)), 0.1, 1 / 6
    return np.column_stack((z.real, z.imag)), gaussian, uniform


def blurred_cdf(x: np.ndarray, gaussian: float, uniform: float) -> np.ndarray:
    """Distribution function of gaussian N(0, 1) + uniform U[0, 1)."""
    if uniform == 0:
        return stats.norm.cdf(x / gaussian)

    def integral(z):
        return z * stats.norm.cdf(z) + stats.norm.pdf(z)

    upper, lower = integral(x / gaussian), integral((x - uniform) / gaussian)
    return (upper - lower) * gaussian / uniform


@pytest.mark.parametrize("name", ["8gaussians", "swissroll", "moons", "circles", "2spirals"])
def test_cell_counts_against_exact_masses(name: str) -> None:
    # Given its point on the curve a row has independent coordinates, so the mass of a cell is a
    # sum over the curve of products of one-dimensional masses.
    n = 200_000
    centres, gaussian, uniform = curve(name)
    edges = np.linspace(-5, 5, 41)
    x_mass, y_mass = (
        np.diff(blurred_cdf(edges[:, None] - column, gaussian, uniform), axis=0)
        for column in centres.T
    )
    expected = n * x_mass @ y_mass.T / len(centres)
    x = toy(name, n, 21)
    counts = np.histogram2d(x[:, 0], x[:, 1], bins=[edges, edges])[0]
    used = expected > 5
    observed = np.append(counts[used], n - counts[used].sum())
    expected = np.append(expected[used], n - expected[used].sum())
    chi_squared = np.sum((observed - expected) ** 2 / expected)
    assert stats.chi2.sf(chi_squared, used.sum()) > 1e-3


def test_swissroll_moments() -> None:
    x = datasets.swissroll(N, 1)
    a, b = 1.5 * np.pi, 4.5 * np.pi
    mean_square = (b**3 - a**3) / (3 * (b - a))
    assert_mean(np.sum(x**2, axis=1), (mean_square + 2) / 25)
    for column, circular in zip(x.T, (np.cos, np.sin), strict=True):
        exact = integrate.quad(lambda t, f=circular: t * f(t), a, b)[0] / (b - a)
        assert_mean(column, exact / 5)


def test_moons_moments() -> None:
    x = datasets.moons(N, 1)
    assert_mean(x[:, 0], 0.0)
    assert_mean(x[:, 1], 0.3)
    assert_mean(x[:, 0] ** 2, 4 * (0.75 + 0.01))
    assert_mean((x[:, 1] - 0.3) ** 2, 4 * (0.5625 - 1 / np.pi + 0.01))


def test_pinwheel_fold_and_twist() -> None:
    x = datasets.pinwheel(10 * N, 1)
    w = x[:, 0] + 1j * x[:, 1]
    # |w|^2 = 4 (f_1^2 + f_2^2), whatever the angle.
    assert_mean(np.abs(w) ** 2, 4 * (1 + 0.3**2 + 0.1**2))
    fourth = (1 + 6 * 0.3**2 + 3 * 0.3**4) + 2 * (1 + 0.3**2) * 0.1**2 + 3 * 0.1**4
    assert_mean(np.abs(w) ** 4, 16 * fourth)
    for power in (1, 2, 3, 4):  # five-fold symmetry
        assert_mean((w**power).real, 0.0)
        assert_mean((w**power).imag, 0.0)
    # The fifth power undoes the choice of the blade and keeps the twist: Gauss-Hermite quadrature.
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    f = (1 + 0.3 * nodes)[:, None] + 1j * 0.1 * nodes
    twist = np.exp(-5j * 0.25 * np.exp(1 + 0.3 * nodes))[:, None]
    exact = 32 * np.sum(weights[:, None] * weights * f**5 * twist) / (2 * np.pi)
    assert abs(exact) > 5  # the check sees the twist
    assert_mean((w**5).real, exact.real)
    assert_mean((w**5).imag, exact.imag)


def test_two_spirals_moments() -> None:
    x = datasets.two_spirals(N, 1)

    def average(f):
        return integrate.quad(lambda u: f(3 * np.pi * np.sqrt(u)), 0, 1, limit=200)[0]

    # An arm's coordinate is a(s) + U/2: E(a + U/2)^2 = E a^2 + E a / 2 + 1/12.
    def arm_x(s):
        return -s * np.cos(s)

    def arm_y(s):
        return s * np.sin(s)

    for column, arm in zip(x.T, (arm_x, arm_y), strict=True):
        square = average(lambda s, a=arm: a(s) ** 2) + average(arm) / 2 + 1 / 12
        assert_mean(column, 0.0)
        assert_mean(column**2, square / 9 + 0.01)
    cross = average(lambda s: (arm_x(s) + 0.25) * (arm_y(s) + 0.25))
    assert_mean(x[:, 0] * x[:, 1], cross / 9)


@pytest.mark.parametrize("name", ["swissroll", "moons", "circles"])
def test_against_scikit_learn(name: str) -> None:
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    if name == "swissroll":
        roll = sklearn_datasets.make_swiss_roll(N, noise=1.0, random_state=0)[0]
        reference = roll[:, [0, 2]] / 5
    elif name == "moons":
        reference = sklearn_datasets.make_moons(N, noise=0.1, random_state=0)[0] * 2 + [-1, -0.2]
    else:
        reference = 3 * sklearn_datasets.make_circles(N, noise=0.08, factor=0.5, random_state=0)[0]
    x = toy(name, N, 8)
    for angle in np.pi / 6 * np.arange(6):
        direction = np.array([np.cos(angle), np.sin(angle)])
        assert stats.ks_2samp(x @ direction, reference @ direction).pvalue > 1e-3
    radii = np.linalg.norm(x, axis=1), np.linalg.norm(reference, axis=1)
    assert stats.ks_2samp(*radii).pvalue > 1e-3


def test_labelled_moons_are_the_moons() -> None:
    points, labels = datasets.labelled_moons(N, 1)
    np.testing.assert_array_equal(points, datasets.moons(N, 1))
    assert_mean(labels.astype(float), 0.5)
    # centres of the half circles (2 cos, 2 sin) - (1, 0.2) and of its mirror image
    for k, centre in enumerate([(-1.0, 4 / np.pi - 0.2), (1.0, 0.8 - 4 / np.pi)]):
        for column, exact in zip(points[labels == k].T, centre, strict=True):
            assert_mean(column, exact)


@pytest.mark.parametrize("label", [0, 1])
def test_labelled_moons_log_prob(label: int) -> None:
    """Integrates to one, and agrees with adaptive quadrature at single points."""
    side, n = np.linspace(-5, 5, 151), 151
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    density = np.exp(datasets.labelled_moons_log_prob(grid, np.full(n * n, label)))
    assert density.sum() * (10 / 150) ** 2 == pytest.approx(1.0, abs=1e-6)
    points = datasets.labelled_moons(5, 3).points
    found = datasets.labelled_moons_log_prob(points, np.full(5, label))
    sign = 1 - 2 * label
    for x, value in zip(points, found, strict=True):

        def near(t, x=x):
            centre = (2 * (label + sign * np.cos(t)) - 1, label + 2 * sign * np.sin(t) - 0.2)
            squared = (x[0] - centre[0]) ** 2 + (x[1] - centre[1]) ** 2
            return np.exp(-squared / (2 * 0.04)) / (2 * np.pi * 0.04) / np.pi

        exact = integrate.quad(near, 0, np.pi, epsabs=0, epsrel=1e-11, limit=200)[0]
        assert value == pytest.approx(np.log(exact), abs=1e-8)
