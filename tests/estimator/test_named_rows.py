"""Every row that comes in: read by its columns' names, refused by its argument's name."""

import datetime
import re

import numpy as np
import pandas
import polars
import pytest

from otflow import OTFlow, transport_between
from otflow.certificates import certify_model
from otflow.estimator.between import sample_w2
from tests.fakes import SMALL, forbid_training, no_training

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 2)) * [1, 10] + [0, 50]
C = RNG.standard_normal((60, 2))
FRAME = pandas.DataFrame(X, columns=["a", "b"])
SWAPPED = FRAME[["b", "a"]]
MASKED = np.ma.masked_array(C, mask=C > 1.5)
DATES = pandas.DataFrame({"a": pandas.date_range("2020", periods=60), "b": X[:, 1]})
WHAT = {
    "masked values": (MASKED, r"expected numbers without a mask.*x0 \(\d+\)"),
    "dates": (DATES, r"expected real numbers; got dates or times in column\(s\) a\."),
    "complex": (X + 1j, "expected real numbers; got complex numbers"),
    "text": (np.array([[1.0, "x"]] * 60, object), "expected numbers; got text in .*x1"),
}
ONE = {
    "masked values": (np.ma.masked_array(np.ones(60), mask=np.arange(60) < 3), r"masked.*\(3 of"),
    "dates": (DATES["a"], "got dates or times"),
    "complex": (np.ones(60) * 1j, "got complex numbers"),
}


@pytest.mark.parametrize("argument", ["X", "X_val", "condition", "condition_val"])
@pytest.mark.parametrize("what", WHAT)
def test_what_is_no_number_is_refused_by_argument_and_column(argument, what, monkeypatch):
    forbid_training(monkeypatch)
    rows, message = WHAT[what]
    message = re.sub(r"x(?=\d)", "c", message) if argument.startswith("condition") else message
    given = {"X": X, "X_val": X, "condition": C, "condition_val": C} | {argument: rows}
    with pytest.raises(ValueError, match=f"^{argument}: {message}"):
        OTFlow(**SMALL).fit(**given)


@pytest.mark.parametrize("what", ONE)
def test_weights_that_are_no_numbers(what, monkeypatch):
    forbid_training(monkeypatch)
    weights, message = ONE[what]
    with pytest.raises(ValueError, match=f"^sample_weight: .*{message}"):
        OTFlow(**SMALL).fit(X, sample_weight=weights)


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (X[:, :1], {}, "X_val has 1 features.*expecting 2"),
        (X[0], {}, "X_val: Expected 2D array"),
        (np.where(X > 60, np.nan, X), {}, r"X_val: expected finite.*x1 \(\d+\)"),
        (SWAPPED, {}, "X_val: The feature names should match"),
        (X - 100, {"bounds": {1: (0, None)}}, "X_val: expected values strictly between"),
        (np.rint(X) + 0.5, {"dequantize": {1: 1.0}}, "X_val: expected multiples"),
    ],
    ids=["columns", "1-d", "NaN", "names", "bounds", "grid"],
)
def test_bad_validation_rows_are_called_so(rows, settings, message, monkeypatch):
    forbid_training(monkeypatch)
    frame = pandas.DataFrame(np.rint(X).clip(1), columns=["a", "b"])
    train = frame if isinstance(rows, pandas.DataFrame) else frame.to_numpy()
    with pytest.raises(ValueError, match=f"^{message}"):
        OTFlow(**SMALL | settings).fit(train, X_val=rows)


# --- names -----------------------------------------------------------------------------------


@pytest.fixture
def model(monkeypatch):
    no_training(monkeypatch)
    return OTFlow(**SMALL).fit(FRAME)


def test_frames_in_another_order_are_refused_by_every_method(model):
    for use in (
        model.score_samples,
        model.score,
        model.transform,
        model.partial_fit,
        model.certify,
        lambda rows: certify_model(model, FRAME, X_holdout=rows),
        lambda rows: OTFlow(**SMALL).fit(FRAME, X_val=rows),
        lambda rows: sample_w2(FRAME, rows),
    ):
        with pytest.raises(ValueError, match=r"in this order; got b, a|same order as they"):
            use(SWAPPED)


def test_ends_have_names_too(model):
    ends = model.set_output(transform="pandas").transform(FRAME)
    expected = model.inverse_transform(ends.to_numpy())
    for names in (["otflow0", "otflow1"], ["a", "b"], [0, 1]):
        found = model.inverse_transform(ends.set_axis(names, axis=1))
        np.testing.assert_array_equal(found, expected)
    for names in (["otflow1", "otflow0"], ["b", "a"], ["u", "v"]):
        with pytest.raises(ValueError, match=r"^Z: expected the columns otflow0, otflow1, in this"):
            model.inverse_transform(ends.set_axis(names, axis=1))
    with pytest.raises(ValueError, match=r"^Z: expected numbers without a mask"):
        model.inverse_transform(MASKED)


def test_one_condition_by_name(monkeypatch):
    no_training(monkeypatch)
    named = polars.DataFrame(C, schema=["heat", "light"])
    model = OTFlow(**SMALL).fit(X, condition=named)
    one = pandas.Series({"heat": 1.0, "light": -1.0})
    expected = model.score_samples(X, [1.0, -1.0])
    np.testing.assert_array_equal(model.score_samples(X, one), expected)
    with pytest.raises(ValueError, match=r"^condition: expected the columns heat, light, in this"):
        model.score_samples(X, one[::-1])


@pytest.mark.slow
def test_between_two_frames(monkeypatch):
    no_training(monkeypatch)
    options = {"max_components": 1, "width": 4, "n_steps": 1, "plan_iter": 0}
    with pytest.raises(ValueError, match=r"^Y: expected the columns a, b, in this order; got b, a"):
        transport_between(FRAME, SWAPPED, **options)
    found = transport_between(FRAME, FRAME.add([2.0, 0.0]), **options)
    moved = found.transform(FRAME)  # without a warning
    np.testing.assert_array_equal(found.transform(X), moved)
    for use in (found.transform, found.inverse_transform, found.certify):
        with pytest.raises(ValueError, match=r"^[XY]: expected the columns a, b, in this order"):
            use(SWAPPED)
    for use in (found.w2, lambda x, y: found.certify(x, y, seconds=1.0)):
        with pytest.raises(ValueError, match=r"^Y: expected the columns a, b"):
            use(FRAME, SWAPPED)
    with pytest.raises(ValueError, match=r"^density: expected a model of a, b; got one of b, a"):
        transport_between(FRAME, FRAME, density=OTFlow(**SMALL).fit(SWAPPED), **options)
    with pytest.raises(ValueError, match=r"^X: .*constant column\(s\) b"):
        transport_between(FRAME.assign(b=0.3), FRAME, **options)


def test_dates_alone_in_polars(monkeypatch):
    forbid_training(monkeypatch)
    frame = polars.DataFrame({"day": [datetime.date(2020, 1, 1 + i) for i in range(20)]})
    with pytest.raises(ValueError, match=r"^X: .*dates or times in column\(s\) day\. Turn them"):
        OTFlow(**SMALL).fit(frame)
