"""What the data decide where a setting is None."""

import numpy as np
import pytest

from otflow import OTFlow, load
from otflow.estimator.defaults import decided, potential_of, ridges
from tests.fakes import SMALL, no_training


@pytest.mark.parametrize(
    ("n", "dim", "expected"),
    [(9, 2, 16), (450, 30, 32), (2000, 2, 48), (20_000, 2, 64), (20_000, 1, 32), (10**7, 8, 192)],
)
def test_ridges(n, dim, expected):
    assert ridges(n, dim) == expected


def test_the_scheme_decides_the_potential():
    assert potential_of(None, "conforming") == "convex"
    assert potential_of(None, "rk4") == "resnet"
    assert potential_of("resnet", "conforming") == "resnet"


def test_large_steps_are_for_the_normal_target():
    kinds = [(True, False, 100), (False, False, 100), (True, True, 100), (True, False, 10**5)]
    found = [decided("convex", 7.0, n, 2, normal=a, fresh=b) for a, b, n in kinds]
    assert [values["learning_rate"] for values in found] == [0.05, 0.005, 0.05, 0.05]
    assert [values["weight_decay"] for values in found] == [0.255, 0.0, 0.0, 0.0]
    assert {values["beta"] for values in found} == {21.0}
    assert [values["plan_iter"] > 0 for values in found] == [False, True, False, False]


def test_decisions_are_kept_and_given_values_win(monkeypatch, tmp_path):
    no_training(monkeypatch)
    rows = np.random.default_rng(0).standard_normal((2500, 2))
    given = {k: v for k, v in SMALL.items() if k != "width"} | {"alpha": 7.0, "learning_rate": 0.1}
    given |= {"scheme": "conforming", "n_steps": 4}
    model = OTFlow(**given).fit(rows)
    assert model.decided_ == {
        "potential": "convex",
        "width": 48,
        "beta": 21.0,
        "weight_decay": 0.059,
        "plan_iter": 0,
    }
    assert (model.used("width"), model.used("learning_rate")) == (48, 0.1)
    assert model.flow_.potential.stage.ridges.shape == (4, 48, 2)
    model.save(tmp_path / "m")
    assert load(tmp_path / "m").decided_ == model.decided_
