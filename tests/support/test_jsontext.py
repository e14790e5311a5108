"""Whatever is in it, the text is JSON as other languages read it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from otflow.support.jsontext import json_text, plain


def strictly(text):
    """JSON, refusing NaN and Infinity, which Python's parser takes."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


def test_what_is_not_finite_is_null():
    deep = {"a": [math.nan, (math.inf, {"b": -math.inf})], "c": 1.5}
    assert strictly(json_text(deep)) == {"a": [None, [None, {"b": None}]], "c": 1.5}


def test_numbers_of_numpy_and_paths():
    values = {
        "number": np.float32(0.5),
        "nan": np.float64("nan"),
        "count": np.int64(3),
        "truth": np.bool_(True),
        "array": np.array([[1.0, np.inf]]),
        "path": Path("a") / "b",
        1: None,
    }
    assert plain(values) == {
        "number": 0.5,
        "nan": None,
        "count": 3,
        "truth": True,
        "array": [[1.0, None]],
        "path": "a/b",
        "1": None,
    }
    assert strictly(json_text(values)) == plain(values)


def test_numbers_come_back_as_they_were():
    for number in (0.1, 1 / 3, 5e-324, 2**60, True):
        assert strictly(json_text(number)) == number


def test_what_json_does_not_know_is_refused():
    with pytest.raises(TypeError):
        json_text({"a": object()})
