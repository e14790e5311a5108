"""Transport between two populations: the map between Gaussians, and a flow as the target."""

import equinox as eqx
import jax
import numpy as np
import pytest
import sklearn.mixture  # noqa: F401  (loaded before its threads are limited)
from scipy import linalg
from threadpoolctl import threadpool_limits

from otflow import Between, OTFlow, transport_between
from otflow.certificates import DualConfig
from otflow.estimator.between import sample_w2
from tests.fakes import no_training

QUICK = {"width": 8, "max_iter": 50, "n_steps": 1, "batch_size": 256}
SHIFT, ROOT = np.array([30.0, -10.0]), np.array([[8.0, 3.0], [0.0, 2.0]])
DUAL = DualConfig(width=8, regression_steps=0, ascent_steps=0)  # the Gaussian map's potential


def populations(n, seed):
    """N(0, 4 I) and its image under an affine map that is no gradient."""
    rng = np.random.default_rng(seed)
    return 2 * rng.standard_normal((n, 2)), SHIFT + rng.standard_normal((n, 2)) @ ROOT.T


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """scikit-learn's fits are so small that several threads mostly wait for one another."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def rows():
    return populations(1500, 0)


@pytest.fixture(scope="module")
def found(rows):
    return transport_between(*rows, seed=1, max_components=3, **QUICK)


def bures(x):
    """x -> m + A x, A = (S0^(1/2) S1 S0^(1/2))^(1/2) / 4 for S0 = 4 I."""
    return SHIFT + x @ linalg.sqrtm(ROOT @ ROOT.T) / 2


@pytest.mark.slow
def test_between_gaussians_it_is_the_map_of_bures(found):
    """1,500 rows: moments are off by some 3 %, the map's error by the square of that."""
    x, _ = populations(2000, 5)
    truth = bures(x)
    error = np.sum((found.transform(x) - truth) ** 2) / np.sum((truth - truth.mean(axis=0)) ** 2)
    assert error < 0.01
    # backwards: rows y of the second population come from bures^-1(y)
    back = found.inverse_transform(truth)
    assert np.mean((back - x) ** 2) < 0.01 * 4
    assert abs(found.inverse_transform(found.transform(x)) - x).max() < 1e-3


def test_distance_to_held_out_rows_is_near_that_of_two_samples(found):
    x, y = populations(600, 7)
    floor = sample_w2(y[:300], y[300:])
    assert found.w2(x[:300], y[:300]) < 1.6 * floor
    assert sample_w2(x[:300], y[:300]) > 10 * floor


def test_sample_w2_in_one_dimension_is_that_of_sorted_rows():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 1)), 3 + rng.standard_normal((50, 1))
    expected = np.sqrt(np.mean((np.sort(x[:, 0]) - np.sort(y[:, 0])) ** 2))
    assert sample_w2(x, y) == pytest.approx(expected, rel=1e-9)
    assert sample_w2(x, y, most=20, seed=1) == sample_w2(x, y, most=20, seed=1)


@pytest.mark.slow
def test_certificate(found):
    """The bracket, in the common scale; T(X) against rows of Y and of another law."""
    x, y = populations(400, 9)
    options = {"config": DUAL, "seconds": 20.0}
    certificate = found.certify(x, y, **options)
    assert certificate.space == "the common scale of both populations"
    scale = found.model.standardizer_.scale[0]
    moved = 0.5 * np.mean(np.sum((bures(x) - x) ** 2, axis=1)) / scale**2
    assert certificate.line("1/2 W2^2(rho0, T#rho0)").value == pytest.approx(moved, rel=0.03)
    assert certificate.line("T(X) against Y, MMD").value > 0.01
    shifted = found.certify(x, y + np.array([10.0, 0.0]), **options)
    for name in ("MMD", "sliced W2"):
        assert shifted.line(f"T(X) against Y, {name}").value < 0.01


def test_files(found, tmp_path, monkeypatch):
    x, y = populations(10, 3)
    found.save(tmp_path / "m")
    again = Between.load(tmp_path / "m")
    np.testing.assert_array_equal(again.transform(x), found.transform(x))
    np.testing.assert_array_equal(again.inverse_transform(y), found.inverse_transform(y))
    rows = np.random.default_rng(0).standard_normal((60, 2)) * [1, 5]
    no_training(monkeypatch)
    OTFlow(width=2, verbose=False).fit(rows).save(tmp_path / "plain")
    with pytest.raises(ValueError, match="expected one scale for all columns"):
        Between.load(tmp_path / "plain")


@pytest.mark.slow
def test_the_mixture_has_the_components_that_predict_best(monkeypatch):
    no_training(monkeypatch)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 2))
    Y = 0.3 * rng.standard_normal((600, 2)) + np.array([-4.0, 4.0])[rng.integers(2, size=600), None]
    found = transport_between(X, Y, max_components=4, width=4)
    assert found.model.flow_.target.log_weights.shape == (2,)


@pytest.fixture(scope="module")
def through_a_flow(rows):
    """The density is not trained: it starts as the Gaussian of the rows."""
    model = OTFlow(width=4, depth=0, n_steps=1, random_state=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        no_training(patch)
        model.fit(rows[1])
    return transport_between(*rows, density=model, **QUICK), model


@pytest.mark.slow
def test_a_flow_as_the_density_of_the_second(through_a_flow, rows):
    """The target's density is the model's in the data's units; the map that of Bures."""
    found, model = through_a_flow
    y = rows[1][:50]
    scaler, target = found.model.standardizer_, found.model.flow_.target
    z = scaler.forward(y).astype(np.float32)
    scores = np.asarray(eqx.filter_jit(type(target).log_prob)(target, z))
    np.testing.assert_allclose(scores + scaler.log_det, model.score_samples(y), atol=1e-3)
    x, _ = populations(500, 5)
    truth = bures(x)
    error = np.sum((found.transform(x) - truth) ** 2) / np.sum((truth - truth.mean(axis=0)) ** 2)
    assert error < 0.02


@pytest.mark.slow
def test_files_with_a_flow_as_target(through_a_flow, tmp_path):
    found, _ = through_a_flow
    found.save(tmp_path / "m")
    again = Between.load(tmp_path / "m")
    x, _ = populations(10, 3)
    np.testing.assert_array_equal(again.transform(x), found.transform(x))
    draws = (f.model.flow_.target.sample(jax.random.key(0), 5) for f in (found, again))
    np.testing.assert_array_equal(*draws)


GOOD = np.random.default_rng(0).standard_normal((50, 2))
BAD = {
    "X a vector": (GOOD[0], GOOD, {}, ValueError, r"^X: expected shape \(n, d\)"),
    "Y of other columns": (GOOD, GOOD[:, :1], {}, ValueError, r"^Y: expected shape \(n, 2\)"),
    "Y not finite": (GOOD, GOOD * np.nan, {}, ValueError, "^Y: expected finite numbers"),
    "a target": (GOOD, GOOD, {"target": None}, ValueError, r"^settings: .*\['target'\]"),
    "no components": (GOOD, GOOD, {"max_components": 0}, ValueError, "^max_components"),
    "a seed": (GOOD, GOOD, {"seed": -1}, ValueError, "^seed"),
    "unfitted": (
        GOOD,
        GOOD,
        {"density": OTFlow()},
        TypeError,
        "^density: expected a fitted OTFlow",
    ),
    "constant": (GOOD * 0, GOOD * 0, {}, ValueError, "^X, Y: expected rows that vary"),
}


@pytest.mark.parametrize(("X", "Y", "options", "error", "message"), BAD.values(), ids=BAD)
def test_bad_arguments(X, Y, options, error, message):
    with pytest.raises(error, match=message):
        transport_between(X, Y, **options)
