"""A jaxlib that is known to be bad is told to those who fit with it, once."""

import warnings

import numpy as np
import pytest

from otflow import OTFlow
from otflow.studies.runner import run_study
from otflow.support import installation
from otflow.targets import StandardNormal
from tests.fakes import SMALL, no_training
from tests.studies.fakes import Ladder

X = np.random.default_rng(0).standard_normal((40, 2))


@pytest.fixture
def jaxlib(monkeypatch):
    """Another version seems to be installed."""
    told = []
    monkeypatch.setattr(installation.metadata, "version", lambda name: told[-1])
    installation.warn_of_faults.cache_clear()
    yield told.append
    installation.warn_of_faults.cache_clear()


@pytest.mark.parametrize(
    ("version", "fault"),
    [
        ("0.10.0", "deadlocks"),
        ("0.10.2", "deadlocks"),
        ("0.11.0", "deadlocks"),
        ("0.11.0rc1", "deadlocks"),
        ("0.8.0", "older"),
        ("0.4.30", "older"),
        *((good, None) for good in ("0.8.1", "0.8.1.dev3", "0.9.2", "0.9.10")),
        *((good, None) for good in ("0.11.1", "0.12.0.1", "1.0.0rc1")),
    ],
)
def test_versions(version, fault):
    found = installation.jaxlib_fault(version)
    assert found is None if fault is None else fault in found


WAYS = {
    "fit": lambda folder: OTFlow(**SMALL).fit(X),
    "fit_density": lambda folder: OTFlow(**SMALL).fit_density(StandardNormal(2)),
    "study": lambda folder: run_study(Ladder(1), folder / "study"),
}


@pytest.mark.parametrize("way", WAYS)
def test_training_warns(jaxlib, way, tmp_path, monkeypatch):
    no_training(monkeypatch)
    jaxlib("0.10.2")
    with pytest.warns(UserWarning, match=r"jaxlib 0\.10\.2 deadlocks .*otflow doctor"):
        WAYS[way](tmp_path)
    with warnings.catch_warnings():  # once a process
        warnings.simplefilter("error")
        WAYS[way](tmp_path / "again")


def test_a_good_one_costs_nothing(jaxlib, monkeypatch):
    no_training(monkeypatch)
    jaxlib("0.9.2")
    OTFlow(**SMALL).fit(X)  # warnings are errors here
