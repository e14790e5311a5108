"""Names of columns, and what in a table is no number."""

import datetime

import numpy as np
import pandas
import polars
import pytest

from otflow.support.checks import check_array, check_real, check_rows
from otflow.support.frames import check_kinds, check_names, names_of, text_columns

ROWS = np.arange(8.0).reshape(4, 2)
DAYS = pandas.date_range("2020-02-01", periods=4)
MASKED = np.ma.masked_array(ROWS, mask=ROWS > 5)


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (pandas.DataFrame(ROWS, columns=["a", "b"]), ("a", "b")),
        (polars.DataFrame(ROWS, schema=["a", "b"]), ("a", "b")),
        (pandas.Series({"b": 1.0, "a": 2.0}), ("b", "a")),
        (pandas.DataFrame(ROWS), None),
        (pandas.Series([1.0, 2.0]), None),
        (ROWS, None),
        ([[1.0]], None),
        (None, None),
    ],
)
def test_names(table, names):
    assert names_of(table) == names


def test_columns_in_another_order_are_refused():
    frame = pandas.DataFrame(ROWS, columns=["a", "b"])
    check_names("Y", frame, ("a", "b"))
    check_names("Y", frame, None)
    check_names("Y", ROWS, ("b", "a"))
    with pytest.raises(ValueError, match=r"^Y: expected the columns b, a, in this order; got a, b"):
        check_names("Y", frame, ("b", "a"))


ODD = {
    "pandas dates": (pandas.DataFrame({"a": DAYS, "b": 1.0}), r"dates or times in column\(s\) a\."),
    "dates of a time zone": (pandas.DataFrame({"a": DAYS.tz_localize("UTC")}), "dates.* a"),
    "periods": (pandas.DataFrame({"p": DAYS.to_period("D"), "b": 1}), r"dates.*\(s\) p\."),
    "durations": (pandas.DataFrame({"p": DAYS - DAYS[0]}), r"dates.*\(s\) p\."),
    "categories of dates": (pandas.DataFrame({"p": pandas.Categorical(DAYS)}), "dates.* p"),
    "objects": (pandas.DataFrame({"p": [datetime.date(2020, 1, 1), None]}), "dates.* p"),
    "polars dates": (polars.DataFrame({"a": [1, 2], "d": [datetime.date(2020, 1, 1)] * 2}), " d"),
    "polars times": (polars.DataFrame({"t": [datetime.time(1)] * 2}), "dates or times .* t"),
    "array of dates": (DAYS.to_numpy().reshape(2, 2), r"dates or times in column\(s\) x0, x1"),
    "list of dates": ([[datetime.datetime(2020, 1, 1), 1.0]], r"dates.*\(s\) x0\."),
    "vector of dates": (DAYS.to_numpy(), "got dates or times. Turn them"),
    "complex array": (ROWS + 1j, r"complex numbers in column\(s\) x0, x1"),
    "complex column": (pandas.DataFrame({"a": [1 + 2j], "b": [1.0]}), r"complex.*\(s\) a\."),
    "complex list": ([[1.0, 2j]], "complex numbers"),
    "masked": (MASKED, r"without a mask.*counts, x0 \(1\), x1 \(1\)\. Drop or fill"),
    "masked vector": (MASKED[:, 0], r"masked values \(1 of them\)"),
}


@pytest.mark.parametrize(("table", "message"), ODD.values(), ids=ODD)
def test_what_is_no_real_number_is_refused(table, message):
    with pytest.raises(ValueError, match=f"^rows: expected .*{message}"):
        check_kinds("rows", table)
    with pytest.raises(ValueError, match=r"^rows: expected .*"):
        check_rows("rows", table)


def test_numbers_in_any_clothes_are_taken():
    for table in (
        ROWS,
        ROWS.tolist(),
        np.ma.masked_array(ROWS, mask=False),
        pandas.DataFrame({"a": pandas.Categorical([1, 2, 1]), "b": [True, False, True]}),
        polars.DataFrame({"a": [1, None], "b": [0.5, 1.5]}),
        np.array([["1", "2.5"]]),
        [[1.0, 2.0], [3.0]],  # ragged: refused elsewhere
    ):
        check_kinds("rows", table)
        assert text_columns(table) == []
    assert text_columns(pandas.DataFrame({"a": ["1", "2"], "b": ["x", "3"]})) == ["b"]
    assert text_columns([["f", 1.0]]) == ["x0"]


def test_masked_numbers_are_refused_in_arrays():
    with pytest.raises(ValueError, match=r"^mean: expected numbers without a mask"):
        check_array("mean", MASKED, (4, 2))


def test_numbers_that_no_file_keeps():
    from decimal import Decimal
    from fractions import Fraction

    for value in (Decimal(1), Fraction(1, 2), "1", True, None, 1j):
        with pytest.raises(TypeError, match=r"^alpha: expected a real number; got"):
            check_real("alpha", value)
    assert check_real("alpha", np.float32(0.5)) == check_real("alpha", 0.5)
