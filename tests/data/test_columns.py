"""Bounds and rounding steps: what is asked for, what is found in the rows, what is refused."""

import math

import numpy as np
import pytest

from otflow.data.columns import check_inside, check_on_grid, make_column_map, named, rounding_step
from tests.helpers import OFFICIAL

RNG = np.random.default_rng(0)
NAMES = ("age", "share", "price")
X = np.column_stack([RNG.integers(0, 90, 200), RNG.random(200), RNG.lognormal(size=200).round(1)])


@pytest.mark.parametrize(
    ("column", "step"),
    [
        pytest.param(RNG.integers(0, 9, 50), 1.0, id="integers"),
        pytest.param([3.0, 700.0, 12345678.0], 1.0, id="integers without ties"),
        pytest.param(5 * RNG.integers(-9, 9, 50), 5.0, id="multiples of 5"),
        pytest.param([0.0, 1.0] * 20, 1.0, id="zero and one"),
        pytest.param(RNG.normal(size=500).round(1), 0.1, id="one decimal"),
        pytest.param(0.2 * RNG.integers(0, 30, 500), 0.2, id="even tenths"),
        pytest.param(1000 + RNG.integers(0, 99, 500) / 100, 0.01, id="two decimals, large"),
        pytest.param(1e-6 * RNG.integers(100, 900, 5000), 1e-6, id="small units"),
        pytest.param(
            RNG.normal(1010, 7, 5000).round(2).astype(np.float32), 0.01, id="float32 decimals"
        ),
        pytest.param(RNG.normal(size=500), 0.0, id="continuous"),
        pytest.param(RNG.normal(size=500).astype(np.float32), 0.0, id="continuous float32"),
        pytest.param(np.repeat(RNG.normal(size=100), 5), 0.0, id="ties without a grid"),
        pytest.param(RNG.normal(size=500).round(6), 0.0, id="decimals without ties"),
        pytest.param(1e300 * RNG.normal(size=9), 0.0, id="huge"),
        pytest.param(np.zeros(5), 0.0, id="zeros"),
    ],
)
def test_rounding_step(column, step):
    column = np.asarray(column, np.float64)
    assert rounding_step(column) == pytest.approx(step, rel=1e-12, abs=0)
    assert rounding_step(-column) == rounding_step(column)


def test_rounded_columns_of_real_data():
    """Turbine measurements: temperatures and pressure rounded at 0.01 to 0.1, as documented."""
    path = OFFICIAL.with_name("gas_turbine.npz")
    if not path.exists():
        pytest.skip(f"needs shared/data/{path.name} beside the repository")
    names = ["AT", "AP", "AH", "AFDP", "GTEP", "TIT", "TAT", "CDP", "TEY", "CO", "NOX"]
    rows = np.load(path)["X"].astype(np.float64)
    columns = make_column_map(None, "auto", rows, names)
    found = {name: step for name, step in zip(names, columns.step, strict=True) if step}
    steps = {"AP": 0.01, "GTEP": 0.001, "TIT": 0.1, "TAT": 0.01, "CDP": 0.01, "TEY": 0.0001}
    assert found == pytest.approx(steps)
    check_on_grid(columns, rows, names)


def test_nothing_asked_for():
    assert make_column_map(None, None, X, NAMES).is_identity
    assert make_column_map({}, {}, X, NAMES).is_identity
    assert make_column_map({"age": (None, math.inf)}, None, X, NAMES).is_identity


def test_columns_by_name_and_number():
    columns = make_column_map({"share": (0, 1.0), 2: (0, None)}, {0: 1, "price": 0.1}, X, NAMES)
    assert columns.lower == (None, 0.0, -0.05)  # half a step outside, where rounded
    assert columns.upper == (None, 1.0, None)
    assert columns.step == (1.0, 0.0, 0.1)
    assert not columns.is_identity


def test_auto_and_one_step_for_all():
    assert make_column_map(None, "auto", X, NAMES).step == (1.0, 0.0, 0.1)
    assert make_column_map(None, np.float32(0.5), X, NAMES).step == (0.5, 0.5, 0.5)


def test_bounds_of_rounded_columns_hold_their_extreme_values():
    columns = make_column_map({"age": (0, 90)}, {"age": 1.0}, X, NAMES)
    assert (columns.lower[0], columns.upper[0]) == (-0.5, 90.5)
    off_grid = make_column_map({"age": (-0.3, 91.2)}, {"age": 1.0}, X, NAMES)
    assert (off_grid.lower[0], off_grid.upper[0]) == (-0.5, 91.5)


@pytest.mark.parametrize(
    ("bounds", "dequantize", "error", "message"),
    [
        ({"heigth": (0, 1)}, None, ValueError, "bounds: .* among age, share, price; got 'heigth'"),
        ({3: (0, 1)}, None, ValueError, "bounds: .*got 3"),
        ({-1: (0, 1)}, None, ValueError, "bounds: .*got -1"),
        ({0: (0, 1), "age": (0, 1)}, None, ValueError, "bounds: .*age twice"),
        ({"age": (1, 1)}, None, ValueError, r"bounds\['age'\]: expected lower < upper"),
        ({"age": (math.nan, 1)}, None, ValueError, r"bounds\['age'\]: expected lower < upper"),
        ({"age": 3}, None, TypeError, r"bounds\['age'\]: expected a pair"),
        ({"age": "log"}, None, TypeError, r"bounds\['age'\]: expected a pair"),
        ((0, 1), None, TypeError, "bounds: expected a dictionary by column; got tuple"),
        (None, "all", ValueError, "dequantize: expected None, 'auto'.*; got 'all'"),
        (None, True, TypeError, "dequantize: expected a number > 0; got bool"),
        (None, 0.0, ValueError, "dequantize: expected a finite number > 0; got 0"),
        (None, {"age": -1}, ValueError, r"dequantize\['age'\]: expected a finite number > 0"),
        (None, {"aged": 1}, ValueError, "dequantize: .*got 'aged'"),
    ],
)
def test_what_is_refused(bounds, dequantize, error, message):
    with pytest.raises(error, match=message):
        make_column_map(bounds, dequantize, X, NAMES)


def test_scales_of_arcsinh():
    """Half the interquartile range, the step where that is 0, or what is said; median as centre."""
    low, middle, high = np.quantile(X[:, 2], (0.25, 0.5, 0.75))
    asked = {"price": None, 0: np.int64(7)}
    columns = make_column_map({"share": (0, 1)}, None, X, NAMES, asked)
    assert columns.arcsinh == ((np.median(X[:, 0]), 7.0), None, (middle, (high - low) / 2))
    assert columns.unbounded == (False, False, False)
    zeros = np.where(np.arange(200) < 160, 0.0, X[:, 0])[:, None]
    assert make_column_map(None, 1.0, zeros, ["n"], {0: None}).arcsinh == ((0.0, 1.0),)
    with pytest.raises(ValueError, match="arcsinh: expected a scale for n, half of whose rows"):
        make_column_map(None, None, zeros, ["n"], {0: None})


def test_tails_are_found_in_columns_without_bounds():
    heavy = RNG.standard_cauchy((500, 2)) ** 3
    rows, names = np.hstack([heavy, RNG.normal(size=(500, 1))]), ["a", "b", "c"]
    columns = make_column_map({"b": (None, 1e300)}, None, rows, names, "auto")
    assert [at is None for at in columns.arcsinh] == [False, True, True]
    assert make_column_map(None, None, rows[:, 2:], ["c"], "auto").is_identity


@pytest.mark.parametrize(
    ("arcsinh", "error", "message"),
    [
        ("all", ValueError, "arcsinh: expected None, 'auto'.*; got 'all'"),
        (["age"], TypeError, "arcsinh: expected a dictionary by column; got list"),
        (1.0, TypeError, "arcsinh: expected a dictionary by column; got float"),
        ({"aged": None}, ValueError, "arcsinh: .* among age, share, price; got 'aged'"),
        ({"age": 0}, ValueError, r"arcsinh\['age'\]: expected a finite number > 0"),
        ({"age": "1"}, TypeError, r"arcsinh\['age'\]: expected a number > 0"),
        ({"share": None}, ValueError, "arcsinh: expected columns without bounds; got share"),
    ],
)
def test_scales_that_are_refused(arcsinh, error, message):
    with pytest.raises(error, match=message):
        make_column_map({"share": (0, 1)}, None, X, NAMES, arcsinh)


def test_rows_out_of_bounds_are_counted_by_column():
    columns = make_column_map({"share": (0, 1), "age": (0, 50)}, {"age": 1}, X, NAMES)
    rows = np.array([[0, 0.5, 1], [50, 1.0, 1], [51, 0.0, -9], [-1, 0.2, 0]])
    with pytest.raises(ValueError, match=r"strictly between.*age \(2\), share \(2\)"):
        check_inside(columns, rows, NAMES)
    check_inside(columns, rows[:1], NAMES)


def test_rows_off_the_grid_are_counted_by_column():
    columns = make_column_map(None, {"age": 2.0, "price": 0.1}, X, NAMES)
    rows = np.array([[2, 0.5, 0.3], [3, 0.1, 0.35], [1, 0, -0.1]])
    with pytest.raises(ValueError, match=r"multiples.*age \(2\), price \(1\)"):
        check_on_grid(columns, rows, NAMES)
    check_on_grid(columns, rows[:1].astype(np.float32).astype(float), NAMES)


def test_named_is_what_json_keeps():
    assert named({0: (0, math.inf), "share": (None, 1)}, NAMES) == {
        "age": [0, None],
        "share": [None, 1],
    }
    assert named({0: 0.5, 2: None}, NAMES) == {"age": 0.5, "price": None}
    assert named("auto", NAMES) == "auto"
    assert named(None, NAMES) is None
