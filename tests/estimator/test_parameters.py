"""What fit accepts, save keeps and load gives back, for every parameter."""

from decimal import Decimal
from fractions import Fraction

import equinox as eqx
import numpy as np
import polars
import pytest
from sklearn.base import clone

from otflow import OTFlow, load
from otflow.data.columns import as_set, from_set
from otflow.targets import GaussianMixture, StandardNormal
from tests.fakes import no_training

X = np.random.default_rng(0).random((60, 2)).round(1) + 0.5
FRAME = polars.DataFrame(X, schema=["a", "b"])
QUIET = {"verbose": False, "random_state": 0, "plan_iter": 0}
SET = {
    "alpha": [1, 2.5, np.float32(0.5)],
    "beta": [None, 0.0, 3],
    "width": [None, 4, np.int64(4)],
    "depth": [0, 2],
    "scheme": ["conforming", "rk4"],
    "n_steps": [None, 2],
    "n_probes": [0],
    "max_iter": [1, 7],
    "natural_iter": [0],
    "batch_size": [16],
    "learning_rate": [None, 0.01],
    "weight_decay": [None, 0.5],
    "patience": [3],
    "plan_iter": [None, 0],
    "merging": [0.0, 0.5],
    "validation_fraction": [0, 0.2],
    "base": ["gaussian", None],
    "random_state": [0, np.int64(3)],
    "dtype": ["float32", "float64"],
    "standardize": [True, False],
    "bounds": [
        None,
        {},
        {0: (0, None)},
        {"a": (0, np.inf), 1: [-np.inf, 9.5]},
        {np.int64(1): (np.float32(0.25), None)},
    ],
    "dequantize": [None, "auto", 0.1, {"b": 0.1}, {0: np.float64(0.1)}],
    "arcsinh": [None, "auto", {}, {"b": None, 0: np.float64(0.5)}],
    "warm_start": [True, False],
    "target": [
        None,
        StandardNormal(2),
        GaussianMixture([0.5, 0.5], [[1.0, 0.0], [-1.0, 0.0]], [np.eye(2)] * 2),
    ],
    "potential": [None, "convex", "resnet"],
    "verbose": [False],
}
CASES = [(name, value) for name, values in SET.items() for value in values]


def test_no_parameter_is_forgotten():
    assert set(SET) == set(OTFlow().get_params())


def assert_same(found, expected):
    for name, value in expected.items():
        if name == "target":
            assert eqx.tree_equal(found[name], value)
        else:
            assert found[name] == value, name


@pytest.mark.filterwarnings("ignore:X. column.s. .* are integers or rounded:UserWarning")
@pytest.mark.parametrize(("name", "value"), CASES, ids=[f"{n}={v!r:.30}" for n, v in CASES])
def test_fit_save_load_clone(name, value, tmp_path, monkeypatch):
    no_training(monkeypatch)
    model = OTFlow(**QUIET | {name: value})
    given = dict(model.get_params())
    model.fit(FRAME)
    assert_same(model.get_params(), given)
    model.save(tmp_path / "m.otflow")
    again = load(tmp_path / "m.otflow")
    for found in (again, clone(again), clone(model)):
        assert_same(found.get_params(), given)
    again.save(tmp_path / "again.otflow")
    assert_same(load(tmp_path / "again.otflow").get_params(), given)
    again._check_continuation(again._settings().make_target(2))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", Fraction(1, 2)),
        ("learning_rate", Decimal("0.01")),
        ("beta", "1"),
        ("validation_fraction", Fraction(1, 10)),
        ("bounds", {0: (Decimal(0), None)}),
        ("bounds", {0: (Fraction(1, 4), None)}),
        ("bounds", {0: ("0", "inf")}),
        ("bounds", {0: "09"}),
        ("bounds", {0: (False, None)}),
        ("bounds", {0: {0: 1, 9: 2}}),
        ("dequantize", Fraction(1, 10)),
        ("dequantize", {"a": Decimal("0.1")}),
        ("arcsinh", {"a": Fraction(1, 2)}),
    ],
)
def test_what_no_file_keeps_is_refused_before_training(name, value):
    with pytest.raises(TypeError, match=f"^{name}.*: expected"):
        OTFlow(**QUIET | {name: value}).fit(FRAME)


def test_bounds_whose_difference_overflows():
    with pytest.raises(ValueError, match=r"^bounds\[0\]: expected upper - lower to be finite"):
        OTFlow(**QUIET, bounds={0: (-1.5e308, 1.5e308)}).fit(X)


def test_a_setting_by_column_as_json():
    spec = {0: (0, None), "0": [-np.inf, 1.5], "b": (np.float64(2), np.inf)}
    found = from_set(as_set(spec))
    assert found == spec
    assert [type(v) for v in found.values()] == [tuple, list, tuple]
