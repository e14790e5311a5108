"""Programs compiled with options that this jaxlib knows, and without those it does not."""

import numpy as np
import pytest

import otflow.support.compiling
from otflow.support.compiling import compiler_options, hot_jit


@pytest.fixture
def fresh():
    """The question to the compiler is asked anew, before and after."""
    compiler_options.cache_clear()
    yield
    compiler_options.cache_clear()


def double(x, times=2):
    return times * x


@pytest.mark.usefixtures("fresh")
def test_an_option_that_the_compiler_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(otflow.support.compiling, "_WANTED", {"xla_cpu_no_such_option": ""})
    assert compiler_options() == {}
    np.testing.assert_array_equal(hot_jit(double)(np.arange(3.0)), [0, 2, 4])


@pytest.mark.usefixtures("fresh")
def test_this_compiler_knows_the_option():
    """JAX 0.8.1 to 0.12 do; where a later one does not, a step is only slower."""
    assert compiler_options() == otflow.support.compiling._WANTED
    np.testing.assert_array_equal(hot_jit(double)(np.arange(3.0), times=3), [0, 3, 6])
    assert hot_jit(double).__name__ == "double"
