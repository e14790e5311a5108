"""A model in the data's units: what the estimator says, without the estimator."""

import numpy as np
import pytest

from otflow.model import Model
from tests.models import CONDITIONED, CONDITIONS, FRAME, MOONS_VAL


def test_densities_maps_and_samples_are_the_estimators(trained):
    model = trained("conforming")
    own, x = model.model_, MOONS_VAL[:50]
    assert isinstance(own, Model)
    scores, invalid = own.log_prob(x)
    np.testing.assert_array_equal(scores, model.score_samples(x))
    assert not invalid.any()
    y = own.forward(x)
    np.testing.assert_array_equal(y, model.transform(x))
    back, valid = own.inverse(y)
    assert valid.all()
    np.testing.assert_allclose(back, x, atol=1e-4)
    drawn, valid = own.sample(20, seed=3)
    assert drawn.shape == (20, 2)
    assert valid.all()


def test_a_condition_in_its_own_units(trained):
    model = trained("conditional")
    own, x, c = model.model_, CONDITIONED[:20], CONDITIONS[:20]
    np.testing.assert_array_equal(own.log_prob(x, c)[0], model.score_samples(x, c))
    fixed = own.given(CONDITIONS[0])
    np.testing.assert_allclose(fixed.log_prob(x)[0], own.log_prob(x, CONDITIONS[0])[0], rtol=1e-4)
    with pytest.raises(ValueError, match="condition: expected shape"):
        own.log_prob(x)
    with pytest.raises(ValueError, match="condition: expected none"):
        fixed.given(CONDITIONS[0])


def test_bounds_and_rounded_columns(trained):
    """-inf outside; samples on the grid; noise stays in the cell on the way to the flow."""
    own, x = trained("mapped columns").model_, FRAME.to_numpy(float)[:30]
    assert own.names == ("income", "visits")
    assert not own.in_own_units
    outside = np.where(np.arange(2) == 0, -1.0, x)
    assert np.isneginf(own.log_prob(outside)[0]).all()
    with pytest.raises(ValueError, match="income"):
        own.to_flow(outside)
    drawn, _ = own.sample(20, seed=0)
    np.testing.assert_array_equal(drawn[:, 1], np.round(drawn[:, 1]))
    cells = own.from_flow(own.dequantized(x, np.random.default_rng(0)))
    assert np.abs(cells[:, 1] - x[:, 1]).max() <= 0.5 + 1e-6
