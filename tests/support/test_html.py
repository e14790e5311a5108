"""Numbers as far as their intervals let them be known."""

import math

import numpy as np
import pytest

from otflow.support.html import plus_minus, within


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (10.12345, 0.08715, "10.123 ± 0.087"),
        (3.3301e-5, 7e-7, "3.330e-05 ± 7.0e-07"),
        (0.3223105203, 2e-9, "0.3223105203 ± 2.0e-09"),
        (-0.455, 0.013, "-0.455 ± 0.013"),
        (55_300.0, 5_000.0, "5.53e+04 ± 5.0e+03"),
        (3.3, 4.0, "3.3 ± 4.0"),
        (0.0, 2e-9, "0.0e+00 ± 2.0e-09"),
        (1.0, 0.0, "1"),
        (1.0, math.nan, "1"),
        (math.nan, 1.0, "unknown"),
    ],
)
def test_plus_minus(value, half, text):
    assert plus_minus(value, half) == text


@pytest.mark.parametrize(
    ("value", "low", "high", "texts"),
    [
        (0.5481, 0.3413, 0.5742, ("0.55", "0.34", "0.58")),
        (0.83258, 0.83177, 0.83350, ("0.8326", "0.8317", "0.8335")),
        (0.0, 0.0, 0.004906, ("0", "0", "0.0050")),
        (1.1, 0.9, 1.1, ("1.10", "0.90", "1.10")),
        (1.0, 1.0, 1.0, ("1", "1", "1")),
        (math.nan, 0.0, 1.0, ("unknown", "0", "1")),
        (2e5, 1.2e5, 3e5, ("2e+05", "1.2e+05", "3e+05")),
    ],
)
def test_within(value, low, high, texts):
    assert within(value, low, high) == texts


def test_ends_are_rounded_outwards():
    """What is shown holds wherever what was proved does."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        low, high = np.sort(rng.normal(size=2) * 10.0 ** rng.integers(-3, 2))
        _, first, last = within(low, low, high)
        assert float(first) <= low + 1e-6 * (high - low)
        assert float(last) >= high - 1e-6 * (high - low)
