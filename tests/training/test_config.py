"""Hyperparameters are checked when the configuration is made."""

import dataclasses
import math

import numpy as np
import pytest

from otflow.training import TrainingConfig


def test_accepts_numpy_numbers_and_boundaries():
    config = TrainingConfig(
        alpha=np.float32(0.5), beta=0, max_iter=np.int64(1), batch_size=1, patience=1, seed=7
    )
    assert config.beta == 0
    assert config.max_iter == 1


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingConfig().alpha = 2.0


@pytest.mark.parametrize("name", ["alpha", "learning_rate", "clip_norm"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_refuses_a_number_that_is_not_positive(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: expected a finite number > 0; got {value}"):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_refuses_a_negative_or_endless_beta(value):
    with pytest.raises(ValueError, match=rf"^beta: expected a finite number >= 0; got {value}"):
        TrainingConfig(beta=value)


@pytest.mark.parametrize("name", ["max_iter", "batch_size", "validate_every", "patience"])
@pytest.mark.parametrize("value", [0, -3])
def test_refuses_a_count_below_one(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: expected an integer >= 1; got {value}"):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("alpha", "3", "str"),
        ("alpha", True, "bool"),
        ("beta", None, "NoneType"),
        ("learning_rate", 1j, "complex"),
        ("max_iter", 2.0, "float"),
        ("batch_size", True, "bool"),
        ("patience", "20", "str"),
    ],
)
def test_refuses_another_type(name, value, kind):
    with pytest.raises(TypeError, match=rf"^{name}: expected .*; got {kind}"):
        TrainingConfig(**{name: value})
