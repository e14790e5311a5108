"""Two populations of different mass: what the fitted map says, files, and what is refused."""

import numpy as np
import pytest
import sklearn.mixture  # noqa: F401  (loaded before its threads are limited)
from threadpoolctl import threadpool_limits

from otflow import GrowingBetween, OTFlow, transport_between

QUICK = {"n_steps": 1, "width": 4, "max_iter": 50, "plan_iter": 50, "batch_size": 64}


def clusters(n, left, seed, shift=0.0):
    """Two clusters, `left` of the rows in the first."""
    rng = np.random.default_rng(seed)
    side = np.where(rng.uniform(size=n) < left, -8.0, 8.0)
    return np.column_stack([side + shift, np.zeros(n)]) + rng.standard_normal((n, 2))


@pytest.fixture(scope="module")
def found():
    with threadpool_limits(1):
        given = clusters(300, 0.5, 0), clusters(300, 0.25, 1, 1.0)
        return transport_between(*given, growth=2.0, mass_y=2.0, max_components=2, **QUICK)


@pytest.mark.slow
def test_the_cluster_that_grows_grows(found):
    x = clusters(200, 0.5, 2)
    growth, left = found.growth(x), x[:, 0] < 0
    assert growth[left].mean() < 1.6  # 1.0 after training to the end
    assert growth[~left].mean() > 2.3  # 3.0
    moved = found.transform(x) - x
    assert abs(moved).max() < 2 * np.pi  # pi delta


def test_the_way_and_back(found):
    x = clusters(60, 0.5, 3)
    ends = found.transform(x)
    np.testing.assert_allclose(found.inverse_transform(ends), x, atol=1e-3)
    whole, start = found.at(x, 1.0), found.at(x, 0.0)
    np.testing.assert_allclose(whole.rows, ends, atol=1e-4)
    np.testing.assert_allclose(whole.mass, found.growth(x) / 60, rtol=1e-4)
    np.testing.assert_allclose(start.mass, 1 / 60, rtol=1e-6)
    rates = found.rates(x, 0.0, 1.0)
    np.testing.assert_allclose(rates, np.log(found.growth(x)), atol=1e-5)


@pytest.mark.slow  # tests/flow has it on the line
def test_the_density_has_the_arriving_mass(found):
    x, y = np.meshgrid(np.linspace(-15, 15, 91), np.linspace(-6, 6, 37), indexing="ij")
    density = np.exp(found.log_density(np.column_stack([x.ravel(), y.ravel()])))
    mass = found.evaluate(4000).mass
    total = density.sum() / 9
    assert total == pytest.approx(mass.mean, abs=5 * mass.standard_error + 0.01)


def test_files(found, tmp_path):
    found.save(tmp_path / "g.otflow")
    again = GrowingBetween.load(tmp_path / "g.otflow")
    x = clusters(20, 0.5, 4)
    np.testing.assert_array_equal(again.growth(x), found.growth(x))
    np.testing.assert_equal(again.history, found.history)  # with NaN in the first row
    (tmp_path / "no.otflow").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"no.otflow: not a readable flow with growth"):
        GrowingBetween.load(tmp_path / "no.otflow")
    with pytest.raises(FileNotFoundError):
        GrowingBetween.load(tmp_path / "none.otflow")


def test_frames_are_matched_by_name(found, monkeypatch):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(clusters(20, 0.5, 4), columns=["a", "b"])
    model = found.model.__class__(found.model.flow, found.model.scale, ("a", "b"), 1.0)
    named = GrowingBetween(model, {})
    np.testing.assert_array_equal(named.growth(frame), found.growth(frame.to_numpy()))
    with pytest.raises(ValueError, match=r"^X: "):
        named.growth(frame[["b", "a"]])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"growth": 0.0}, ValueError, r"^growth: expected a finite number > 0"),
        ({"growth": "a"}, TypeError, r"^growth: expected a number > 0"),
        ({"mass_y": -1.0}, ValueError, r"^mass_y: expected a finite number > 0"),
        ({"growth": None, "mass_y": 2.0}, ValueError, r"^mass_x, mass_y, density_x: expected 1, 1"),
        ({"growth": None, "density_x": OTFlow()}, ValueError, r"^mass_x, mass_y, density_x"),
        ({"depth": 3}, ValueError, r"^settings: expected some of alpha.* got depth"),
        ({"n_steps": 0}, ValueError, r"^n_steps: expected an integer >= 1"),
        ({"density_x": OTFlow()}, TypeError, r"^density_x: expected a fitted OTFlow"),
    ],
)
def test_refused(change, error, message):
    x = clusters(40, 0.5, 0)
    with pytest.raises(error, match=message):
        transport_between(x, x + 1, max_components=1, **({"growth": 1.0} | change))


@pytest.mark.parametrize("time", [-0.1, 1.1])
def test_a_time_outside_is_refused(found, time):
    with pytest.raises(ValueError, match=r"^time: expected"):
        found.at(np.zeros((1, 2)), time)
