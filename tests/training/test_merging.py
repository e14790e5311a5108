"""A mixture target whose components come apart while training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import otflow.training.loop as loop_module
from otflow import OTFlow
from otflow.targets import GaussianMixture, StandardNormal
from otflow.training import TrainingConfig, train
from tests.fakes import Translation, untrained
from tests.training.glide import Glide

TARGET = GaussianMixture(
    [0.7, 0.3], [[-2.0, 0.0], [2.0, 0.0]], np.array([np.eye(2), np.eye(2)]) * 0.16
)


def test_the_share_falls_from_one_to_zero():
    config = TrainingConfig(max_iter=100, merging=0.6)
    shares = [config.merged_share(k) for k in range(101)]
    assert shares[0] == 1
    assert (np.diff(shares[:61]) < 0).all()
    assert shares[60:] == [0.0] * 41
    assert shares[30] == pytest.approx(0.5**6)
    assert TrainingConfig(merging=0.0).merged_share(0) == 0


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, np.nan])
def test_refuses_a_share_out_of_range(value):
    with pytest.raises(ValueError, match=r"^merging: expected"):
        TrainingConfig(merging=value)
    with pytest.raises(ValueError, match=r"^merging: expected"):
        OTFlow(merging=value).fit(np.random.default_rng(0).standard_normal((50, 2)))


def test_steps_aim_at_the_merged_target_and_validation_at_the_target(monkeypatch):
    """Blocks of 5 of 40 steps: half of them while the components are under way."""
    make_block, seen = loop_module.make_block, []

    def recording(scheme, target, *args):
        block = make_block(scheme, target, *args)

        def wrapped(*given):
            seen.append(given[-1])
            return block(*given)

        return wrapped

    monkeypatch.setattr(loop_module, "make_block", recording)
    config = TrainingConfig(max_iter=40, validate_every=5, merging=0.5, patience=2)
    x = np.random.default_rng(0).standard_normal((64, 2)).astype(np.float32)
    start = Translation(jnp.zeros(2))
    result = train(start, Glide(1), TARGET, x, x[:32], config, False)
    for k, target in enumerate(seen):
        share = config.merged_share(5 * k)
        expected = TARGET.merged(share) if share else TARGET
        for name in ("means", "factors"):
            pair = (np.asarray(getattr(t, name)) for t in (target, expected))
            np.testing.assert_allclose(*pair, rtol=1e-5, atol=1e-7)
    assert len(seen) > 4  # nobody stops before they are apart
    nll = -float(np.mean(jax.jit(lambda y: TARGET.log_prob(y))(x[:32])))
    assert result.history["val_nll"][0] == pytest.approx(nll, rel=1e-5)


def test_the_same_steps_towards_a_target_without_components():
    x = (np.random.default_rng(0).standard_normal((64, 2)) + 1).astype(np.float32)
    start, found = Translation(jnp.zeros(2)), []
    for merging in (0.0, 0.5):
        config = TrainingConfig(max_iter=20, merging=merging)
        found.append(train(start, Glide(1), StandardNormal(2), x, None, config, False))
    np.testing.assert_array_equal(found[0].potential.shift, found[1].potential.shift)


@pytest.mark.slow
def test_mass_crosses_the_gap_between_components():
    """30 % of the rows lie on the left, 70 % belong there: 10 standard deviations away."""
    rng = np.random.default_rng(0)
    X = 0.4 * rng.standard_normal((1000, 2))
    X[:, 0] += np.where(rng.random(1000) < 0.3, -2.0, 2.0)
    options = {"width": 16, "depth": 0, "n_steps": 4, "max_iter": 400, "batch_size": 500}
    options |= {"alpha": 100.0, "learning_rate": 0.02, "validation_fraction": 0.0}
    options |= {"random_state": 0, "standardize": False, "verbose": False}
    options["potential"] = "resnet"
    stuck, moved = (OTFlow(target=TARGET, merging=m, **options).fit(X) for m in (0.0, 0.6))
    left = [np.mean(model.transform(X)[:, 0] < 0) for model in (stuck, moved)]
    assert left[0] < 0.4
    assert left[1] == pytest.approx(0.7, abs=0.06)
    assert moved.score(X) > stuck.score(X) + 0.1


def test_fitted_weights_are_gone_on_with_towards_the_target(monkeypatch):
    """A warm start must not lead back to where the components lay together."""
    seen = []
    monkeypatch.setattr(
        "otflow.estimator.fitting.train",
        lambda *args: seen.append(args[5]) or untrained(*args),
    )
    X = np.random.default_rng(0).standard_normal((64, 2))
    options = {"width": 2, "depth": 0, "n_steps": 1, "max_iter": 2, "random_state": 0}
    options["potential"] = "resnet"
    options |= {"warm_start": True, "verbose": False, "standardize": False}
    model = OTFlow(target=TARGET, **options).fit(X)
    model.fit(X)
    assert [config.merging for config in seen] == [0.6, 0.0]
    assert seen[0] == dataclasses.replace(seen[1], merging=0.6, seed=seen[0].seed)
