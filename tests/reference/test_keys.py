"""Seeds and both styles of JAX keys."""

import jax
import numpy as np
import pytest

from otflow.reference.keys import generator_from_key


def draw(key):
    return generator_from_key(key).standard_normal(4)


def test_deterministic_and_style_independent():
    np.testing.assert_array_equal(draw(3), draw(np.int64(3)))
    np.testing.assert_array_equal(draw(jax.random.key(5)), draw(jax.random.PRNGKey(5)))
    np.testing.assert_array_equal(draw(np.asarray(jax.random.PRNGKey(5))), draw(jax.random.key(5)))
    assert not np.array_equal(draw(jax.random.key(5)), draw(jax.random.key(6)))
    assert not np.array_equal(draw(3), draw(4))


@pytest.mark.parametrize(
    ("key", "error"),
    [
        pytest.param(-1, ValueError, id="negative"),
        pytest.param(True, TypeError, id="bool"),
        pytest.param(1.0, TypeError, id="float"),
        pytest.param(None, TypeError, id="None"),
        pytest.param(np.zeros(2), TypeError, id="float array"),
        pytest.param(np.zeros((2, 2), np.uint32), ValueError, id="batch"),
    ],
)
def test_bad_keys(key, error):
    with pytest.raises(error):
        generator_from_key(key)
