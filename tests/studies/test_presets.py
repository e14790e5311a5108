"""The standard studies can be made for every problem, and changed by name."""

import dataclasses
import json

import numpy as np
import pytest

from otflow.studies.presets import KINDS, make_study
from otflow.studies.problems import DataProblem, make_problem

PRODUCT = make_problem("product", 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("demo", [False, True])
def test_every_kind_in_both_sizes(kind, demo):
    study = make_study(kind, PRODUCT, demo=demo)
    assert type(study) is KINDS[kind]
    assert study.kind == kind
    assert study.problem is PRODUCT
    assert study.units()
    json.dumps(study.settings(), allow_nan=False)
    full = KINDS[kind](PRODUCT)
    assert (study.settings() == full.settings()) != demo


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_are_the_replicates_of_a_cell(kind):
    few, many = (make_study(kind, PRODUCT, seeds=k) for k in (1, 3))
    field = "replicates" if kind == "samples" else "seeds"
    assert getattr(few, field) == (0,)
    assert getattr(many, field) == (0, 1, 2)
    assert dataclasses.replace(few, **{field: (0, 1, 2)}).settings() == many.settings()


def test_seeds_win_over_the_demo_and_changes_over_both():
    assert make_study("alpha", PRODUCT, seeds=5, demo=True).seeds == tuple(range(5))
    assert make_study("alpha", PRODUCT, demo=True, evaluation=17).evaluation == 17


def test_networks_are_wider_in_higher_dimension():
    assert make_study("alpha", make_problem("product", 8)).network.width == 128
    assert make_study("alpha", PRODUCT).network.width == KINDS["alpha"](PRODUCT).network.width


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (("nope", PRODUCT), ValueError, r"^kind: expected one of \('alpha', 'samples'"),
        (("alpha", PRODUCT, 0), ValueError, r"^seeds: expected an integer >= 1; got 0"),
        (("alpha", PRODUCT, 1.5), TypeError, r"^seeds: expected an integer >= 1; got float"),
        (("width", DataProblem(np.eye(8))), TypeError, r"^problem: expected an ExactProblem"),
    ],
)
def test_refused(args, error, message):
    with pytest.raises(error, match=message):
        make_study(*args)


def test_unknown_fields_are_refused():
    with pytest.raises(ValueError, match=r"^changes: expected fields of .*; got \['widht'\]"):
        make_study("steps", PRODUCT, widht=3)


def test_sample_sizes_fit_the_rows():
    """At most half of the training rows, 70 % of all."""
    rows = np.random.default_rng(0).normal(size=(4000, 2))
    assert make_study("samples", DataProblem(rows)).sizes == (250, 500, 1000)
    assert make_study("samples", DataProblem(rows[:100])).sizes == (35,)
