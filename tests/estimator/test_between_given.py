"""Maps under a condition: conditional Gaussians whose map is known, files, and bad arguments."""

import equinox as eqx
import jax
import numpy as np
import pytest
from scipy import linalg

from otflow import Between, OTFlow, transport_between
from otflow.certificates import DualConfig, certify_conditional
from tests.fakes import forbid_training, no_training

ROOT_X = np.array([[1.0, 0.3], [0.3, 0.8]])  # symmetric roots of the covariances
ROOT_Y = np.array([[2.0, -0.4], [-0.4, 0.5]])
SLOPE_X, SLOPE_Y = np.array([[-1.0], [0.5]]), np.array([[2.0], [1.0]])
SHIFT = np.array([30.0, -10.0])
QUICK = {"width": 8, "max_iter": 25, "n_steps": 1, "alpha": 1e4, "learning_rate": 1e-4}
QUICK |= {"batch_size": 256, "plan_iter": 0}  # of samples, so less exact than the Gaussian start


def populations(n, seed):
    """x | c ~ N(A c, R^2) and y | c ~ N(m + B c, S^2), c of other laws: (rows, c) of both."""
    rng = np.random.default_rng(seed)
    c_x, c_y = 5 + rng.standard_normal((n, 1)), 6 + 2 * rng.standard_normal((n, 1))
    x = c_x @ SLOPE_X.T + rng.standard_normal((n, 2)) @ ROOT_X
    y = SHIFT + c_y @ SLOPE_Y.T + rng.standard_normal((n, 2)) @ ROOT_Y
    return x, c_x, y, c_y


def bures(x, c):
    """The optimal map from x | c to y | c."""
    S0, S1 = ROOT_X @ ROOT_X, ROOT_Y @ ROOT_Y
    back = np.linalg.inv(ROOT_X)
    A = back @ np.real(linalg.sqrtm(ROOT_X @ S1 @ ROOT_X)) @ back
    assert np.allclose(A @ S0 @ A, S1)
    return SHIFT + c @ SLOPE_Y.T + (x - c @ SLOPE_X.T) @ A


def uvp(found, truth):
    """L2-UVP in percent: of the variance of y given c."""
    return 100 * np.mean(np.sum((found - truth) ** 2, axis=1)) / np.trace(ROOT_Y @ ROOT_Y)


@pytest.fixture(scope="module")
def found():
    """The density of Y given c is not trained: it starts as the conditional Gaussian."""
    x, c_x, y, c_y = populations(4000, 0)
    density = OTFlow(width=4, n_steps=1, alpha=1e6, random_state=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        no_training(patch)
        density.fit(y, condition=c_y)
    given = {"condition_x": c_x, "condition_y": c_y, "density": density}
    return transport_between(x, y, **given, seed=1, **QUICK)


def test_given_c_it_is_the_map_of_bures(found):
    """4,000 rows: regressions and covariances are off by some 2 %, the map by the square."""
    x, c, _, _ = populations(1000, 5)
    truth = bures(x, c)
    assert uvp(found.transform(x, c), truth) < 0.5
    assert np.abs(found.inverse_transform(found.transform(x, c), c) - x).max() < 1e-3
    # a map that does not know c is far from it: c decides most of where a row goes
    assert uvp(found.transform(x, c[::-1]), truth) > 50


def test_under_one_condition(found):
    x, c, _, _ = populations(200, 6)
    one = found.given(c[0])
    at = np.tile(c[0], (len(x), 1))
    np.testing.assert_allclose(one.transform(x), found.transform(x, c[0]), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.transform(x, at), found.transform(x, c[0]), atol=1e-4)


def test_the_target_is_the_density_given_c(found):
    """Its log-density, in the data's units, is that of the model of Y, row by row."""
    _, _, y, c = populations(30, 7)
    model = found.model
    own, of_condition = model.standardizer_, model.condition_scaler_
    z, known = (np.asarray(a, np.float32) for a in (own.forward(y), of_condition.forward(c)))
    scores, one = (np.asarray(a) for a in _log_probs(model.flow_.target, z, known))
    cov, r = ROOT_Y @ ROOT_Y, y - SHIFT - c @ SLOPE_Y.T
    exact = -0.5 * np.sum(r * np.linalg.solve(cov, r.T).T, axis=1)
    exact -= 0.5 * np.linalg.slogdet(2 * np.pi * cov)[1]
    np.testing.assert_allclose(scores + own.log_det, exact, atol=0.15)
    np.testing.assert_allclose(one[3], scores[3], atol=1e-3)


def test_the_target_can_be_drawn_from(found):
    """Draws less their mean given c have the covariance of y given c: 4,000 of them, so to 6 %."""
    _, _, _, c = populations(4000, 8)
    model = found.model
    known = np.asarray(model.condition_scaler_.forward(c), np.float32)
    z = model.flow_.target.given(known).sample(jax.random.key(0), len(c))
    rest = model.standardizer_.inverse(np.asarray(z)) - SHIFT - c @ SLOPE_Y.T
    assert np.abs(rest.mean(axis=0)).max() < 0.15
    np.testing.assert_allclose(np.cov(rest.T), ROOT_Y @ ROOT_Y, atol=0.3)


@eqx.filter_jit
def _log_probs(target, z, c):
    """Every row under its own condition, and all under the fourth."""
    return target.given(c).log_prob(z), target.given(c[3]).log_prob(z)


def test_samples_are_those_of_x_given_c(found):
    """Draws under one c, through rows of it: the first population's mean there."""
    c = np.full((4000, 1), 4.0)
    x = found.model.sample(4000, 0, c)
    error = x.mean(axis=0) - 4.0 * SLOPE_X[:, 0]
    assert np.abs(error).max() < 0.15


def test_certificate_on_average(found):
    """One stage is its own dual for every c; the bracket holds the exact mean of 1/2 W2^2."""
    x, c, y, c_y = populations(600, 9)
    certificate = found.certify(x, y[:60], c, c_y[:60])
    exact = half_squared(found, x, c)
    assert certificate.lower < exact < certificate.upper
    assert certificate.line("excess transport").interval == (0.0, 0.0)
    assert certificate.line("T(X) against Y with their conditions, MMD").value < 0.01  # c differ


def half_squared(found, x, c):
    """1/2 E|T*(x) - x|^2 in the common scale."""
    moved = np.sum((bures(x, c) - x) ** 2, axis=1)
    return 0.5 * moved.mean() / found.model.standardizer_.scale[0] ** 2


@pytest.mark.slow
def test_certificate_for_one_condition(found):
    at, rng = np.array([[5.0]]), np.random.default_rng(1)
    x = at @ SLOPE_X.T + rng.standard_normal((300, 2)) @ ROOT_X
    y = SHIFT + at @ SLOPE_Y.T + rng.standard_normal((300, 2)) @ ROOT_Y
    certificate = found.given(at[0]).certify(x, y)
    assert certificate.lower < half_squared(found, x, at) < certificate.upper
    assert certificate.line("T(X) against Y, MMD").value > 0.01


def test_a_dual_that_is_fitted_bounds_it_from_below(found, monkeypatch):
    """As for several stages: never above the exact mean, and within 3 % of it for Gaussians."""
    from otflow.certificates import conditional

    x, c, _, _ = populations(600, 9)
    seen = conditional._bracket
    monkeypatch.setattr(
        conditional, "_bracket", lambda pushed, c, own, *given: seen(pushed, c, False, *given)
    )
    quick = DualConfig(width=8, regression_steps=0, ascent_steps=0)
    certificate = certify_conditional(found.model, x, c, config=quick, seconds=20.0)
    excess = certificate.line("excess transport")
    assert 0 <= excess.value < 0.03 * certificate.upper


def test_files(found, tmp_path):
    x, c, _, _ = populations(10, 3)
    found.save(tmp_path / "m")
    again = Between.load(tmp_path / "m")
    np.testing.assert_array_equal(again.transform(x, c), found.transform(x, c))
    found.given(c[0]).save(tmp_path / "one")
    one = Between.load(tmp_path / "one")
    np.testing.assert_array_equal(one.transform(x), found.given(c[0]).transform(x))


GOOD = np.random.default_rng(0).standard_normal((50, 2))
C = np.random.default_rng(1).standard_normal((50, 1))
BAD = {
    "of Y alone": (None, C, {}, "^condition_y: expected none"),
    "of X alone": (C, None, {}, "^condition_y: expected shape"),
    "too few": (C[:9], C, {}, r"^condition_x: expected shape \(50, k\)"),
    "not finite": (C, C * np.nan, {}, "^condition_y: expected finite numbers"),
    "of two widths": (GOOD, C, {}, "^condition_y: expected 2 columns, as condition_x has; got 1"),
}


def test_conditions_that_the_second_lacks(monkeypatch):
    """Categories are refused; numbers out of range are told, before any training."""
    forbid_training(monkeypatch)
    classes = np.eye(3)[np.arange(50) % 3]
    with pytest.raises(ValueError, match=r"^condition_y: expected rows of every .* none of c2\.$"):
        transport_between(GOOD, GOOD, condition_x=classes, condition_y=classes[np.arange(50) % 2])
    with (
        pytest.raises(AssertionError, match="training was reached"),
        pytest.warns(UserWarning, match=r"condition_x: \d+% of the rows lie outside the range"),
    ):
        transport_between(GOOD, GOOD, condition_x=3 * C, condition_y=C)
    with pytest.raises(ValueError, match=r"^alpha: expected"):
        transport_between(GOOD, GOOD, condition_x=C, condition_y=C, alpha=-1.0)
    with pytest.raises(ValueError, match=r"^X, Y: expected at least 10 rows of both"):
        transport_between(GOOD[:5], GOOD, condition_x=C[:5], condition_y=C)


@pytest.mark.parametrize(("c_x", "c_y", "options", "message"), BAD.values(), ids=BAD)
def test_bad_conditions(c_x, c_y, options, message):
    with pytest.raises(ValueError, match=message):
        transport_between(GOOD, GOOD, condition_x=c_x, condition_y=c_y, **options)


def test_a_density_of_the_wrong_kind(found, monkeypatch):
    no_training(monkeypatch)
    plain = OTFlow(width=2, verbose=False).fit(GOOD)
    with pytest.raises(ValueError, match="expected a model with 1 columns of a condition; got 0"):
        transport_between(GOOD, GOOD, condition_x=C, condition_y=C, density=plain)


def test_a_condition_is_asked_for_and_refused(found):
    x, c, _, _ = populations(5, 3)
    with pytest.raises(ValueError, match=r"^condition: expected shape"):
        found.transform(x)
    with pytest.raises(ValueError, match=r"^condition: expected none"):
        found.given(c[0]).transform(x, c)
    with pytest.raises(ValueError, match=r"^model: expected a fitted conditional OTFlow"):
        certify_conditional(found.given(c[0]).model, x, c)
