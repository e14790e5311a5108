"""OTFlowOutlier: the promised share of good rows, and what lies far out."""

import numpy as np
import pandas
import pytest
from sklearn.base import clone

from otflow import OTFlow, OTFlowOutlier
from tests.fakes import SMALL, no_training

RNG = np.random.default_rng(0)
TINY = {**SMALL, "scheme": "conforming", "n_steps": 1, "depth": 0}


@pytest.fixture
def detector(monkeypatch):
    no_training(monkeypatch)
    return OTFlowOutlier(OTFlow(**TINY), contamination=0.1)


def test_the_promise(detector):
    """Mean over tables of the share of good rows flagged: k / (m + 1) = 6 / 61, here by hand."""
    shares = []
    for _ in range(12):
        X = RNG.standard_t(4, (300, 2))
        found = detector.fit(X)
        assert found.n_held_out_ == 60
        shares.append((found.predict(RNG.standard_t(4, (4000, 2))) == -1).mean())
    error = np.std(shares, ddof=1) / np.sqrt(len(shares))
    assert abs(np.mean(shares) - 6 / 61) < 4 * error
    assert error < 0.03


def test_frames_and_signs(detector):
    frame = pandas.DataFrame(RNG.standard_normal((300, 2)), columns=["a", "b"])
    found = detector.fit(frame)
    assert found.flow_.columns_ == ("a", "b")
    assert list(found.feature_names_in_) == ["a", "b"]
    rows = pandas.DataFrame([[0.0, 0.0], [50.0, -50.0]], columns=["a", "b"])
    assert found.predict(rows).tolist() == [1, -1]
    decided = found.decision_function(rows)
    assert decided[0] > 0 > decided[1]
    np.testing.assert_allclose(decided + found.offset_, found.flow_.score_samples(rows))
    assert clone(found).get_params()["contamination"] == 0.1


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"contamination": 0.0}, ValueError, r"^contamination: expected a number in \(0, 1\)"),
        ({"contamination": "auto"}, TypeError, "^contamination: expected a number"),
        ({"contamination": 0.001}, ValueError, "^X: expected at least 4995 rows .* got 300"),
        ({"flow": "flow"}, TypeError, "^flow: expected an OTFlow; got str"),
    ],
)
def test_bad_input(detector, change, error, told):
    with pytest.raises(error, match=told):
        detector.set_params(**change).fit(RNG.standard_normal((300, 2)))


def test_names_are_compared(detector):
    frame = pandas.DataFrame(RNG.standard_normal((300, 2)), columns=["a", "b"])
    detector.fit(frame)
    with pytest.raises(ValueError, match="feature names"):
        detector.predict(frame[["b", "a"]])
