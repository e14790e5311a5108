"""`OTFlow(potential="convex")`: a density that integrates to one, by every way of training."""

import numpy as np
import pytest

from otflow import OTFlow, load
from otflow.datasets import toy
from otflow.targets import GaussianMixture
from tests.fakes import SMALL, no_training

CONVEX = SMALL | {"potential": "convex", "scheme": "conforming", "learning_rate": 0.05}
MOONS = toy("moons", 300, 0)


def clusters(n, rng):
    """Two Gaussians of deviation 0.5, ten of them apart."""
    return 0.5 * rng.standard_normal((n, 2)) + np.where(rng.random(n) < 0.5, 5.0, -5.0)[:, None]


def log_truth(x):
    one = [-0.5 * ((x - c) ** 2).sum(1) / 0.25 - np.log(2 * np.pi * 0.25) for c in (5.0, -5.0)]
    return np.logaddexp(*one) - np.log(2)


@pytest.fixture(scope="module")
def between_clusters():
    """One step, as the map that used to fold between the clusters."""
    rows = clusters(1000, np.random.default_rng(0))
    settings = CONVEX | {"n_steps": 1, "width": 32, "max_iter": 400, "alpha": 30.0}
    return OTFlow(**settings).fit(rows)


def test_no_density_above_the_true_law(between_clusters):
    """Of 4,000 rows the mean is below the truth's but for chance, 3 standard errors; integral 1."""
    rows = clusters(4000, np.random.default_rng(1))
    gain = between_clusters.score_samples(rows) - log_truth(rows)
    assert np.isfinite(gain).all()
    assert gain.mean() < 3 * gain.std() / np.sqrt(len(gain))
    assert gain.mean() > -0.5  # and it has learned
    line = np.linspace(-20.0, 20.0, 401)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    total = np.exp(between_clusters.score_samples(grid)).sum() * (line[1] - line[0]) ** 2
    assert total == pytest.approx(1, abs=2e-3)


def test_every_sample_has_a_density(between_clusters):
    drawn = between_clusters.sample(2000, random_state=0)
    assert np.isfinite(between_clusters.score_samples(drawn)).all()
    returned = between_clusters.inverse_transform(between_clusters.transform(drawn))
    np.testing.assert_allclose(returned, drawn, atol=2e-3)  # float32, stretched between clusters


def test_one_step_is_straight(between_clusters):
    assert np.max(between_clusters.history_["val_straightness"]) < 1e-3


def test_files_and_continuation(tmp_path, monkeypatch):
    no_training(monkeypatch)
    model = OTFlow(**CONVEX).fit(MOONS)
    model.save(tmp_path / "m.otflow")
    again = load(tmp_path / "m.otflow")
    np.testing.assert_array_equal(again.score_samples(MOONS), model.score_samples(MOONS))
    assert again.potential == "convex"
    with pytest.raises(ValueError, match="potential"):
        again.set_params(potential="resnet").partial_fit(MOONS)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param("conditional", marks=pytest.mark.slow),  # tests/data/test_conditions.py trains
        "without a base",
        pytest.param("another target", marks=pytest.mark.slow),
    ],
)
def test_other_ways_to_start(case):
    """A few steps lower the objective from a finite start; the last ones are natural."""
    settings, given = CONVEX | {"max_iter": 50}, {}
    if case == "another target":
        settings |= {"natural_iter": 2, "learning_rate": 0.005}
        settings["target"] = GaussianMixture(
            [0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [0.5 * np.eye(2)] * 2
        )
    else:
        given["condition"] = (MOONS[:, :1] > 0.5).astype(float)
        settings["base"] = None if case == "without a base" else "gaussian"
    model = OTFlow(**settings).fit(MOONS, **given)
    objective = model.history_["objective"]
    assert np.isfinite(objective).all()
    if case != "another target":  # a plan is a good start, and these are few steps
        assert objective[-1] < objective[0]
    if "natural_iter" in settings:
        assert np.isfinite(model.natural_history_["objective"]).all()


def test_a_refit_without_natural_steps_forgets_those_before(monkeypatch):
    no_training(monkeypatch)
    model = OTFlow(**CONVEX)
    model.natural_history_ = {"iteration": [0, 10]}
    assert not hasattr(model.fit(MOONS), "natural_history_")


def test_without_base_or_condition_nothing_moves_at_the_start(monkeypatch):
    """But for silent heights of 8e-5."""
    no_training(monkeypatch)
    model = OTFlow(**CONVEX | {"base": None, "standardize": False}).fit(MOONS)
    np.testing.assert_allclose(model.transform(MOONS), MOONS, atol=2e-2)


def test_settings_are_checked():
    for change, message in (
        ({"scheme": "rk4"}, "potential: expected 'resnet' with scheme 'rk4'; got 'convex'"),
        ({"potential": "other"}, r"potential: expected one of \('convex', 'resnet'\); got 'other'"),
    ):
        with pytest.raises(ValueError, match=message):
            OTFlow(**CONVEX | change).fit(MOONS)
