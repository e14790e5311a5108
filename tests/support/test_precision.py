"""The precision context: it changes what is inside, and nothing outside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow.support.precision import dtype_of, precision


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("float32", "float32"),
        ("float64", "float64"),
        (np.float64, "float64"),
        (jnp.float32, "float32"),
        (float, "float64"),
        (np.dtype("float32"), "float32"),
    ],
    ids=str,
)
def test_default_float_inside(dtype, name):
    with precision(dtype):
        assert jnp.zeros(1).dtype == jax.random.normal(jax.random.key(0), (1,)).dtype == name


def test_products_are_as_precise_as_their_type():
    """A GPU multiplies float32 with 10 bits unless it is told."""
    with precision("float32"):
        product = str(jax.make_jaxpr(jnp.matmul)(jnp.ones((2, 2)), jnp.ones((2, 2))))
    assert "HIGHEST" in product


def test_nothing_changes_outside():
    before = jax.config.jax_enable_x64
    with precision("float64"):
        with precision("float32"):
            assert jnp.zeros(1).dtype == np.float32
        assert jnp.zeros(1).dtype == np.float64
    assert jax.config.jax_enable_x64 == before
    assert jax.config.jax_default_matmul_precision is None
    assert jnp.zeros(1).dtype == np.float32


def test_an_error_inside_restores_too():
    with pytest.raises(KeyError), precision("float64"):
        raise KeyError
    assert jnp.zeros(1).dtype == np.float32


@pytest.mark.parametrize("dtype", ["float16", "int32", int, complex, "abc", None], ids=str)
def test_other_dtypes_are_rejected(dtype):
    with (
        pytest.raises(ValueError, match=r"^dtype: expected 'float32' or 'float64'; got"),
        precision(dtype),
    ):
        pass


TREES = {
    "nothing": ((), np.float32),
    "float32": ({"a": np.zeros(2, np.float32)}, np.float32),
    "mixed": ([np.zeros(2, np.float32), np.zeros(2)], np.float64),
    "integers do not count": ([np.zeros(2, np.int64), np.zeros(1, np.float32)], np.float32),
    "plain numbers do not count": ([1.5, np.zeros(1, np.float32)], np.float32),
    "half is computed in float32": ([np.zeros(2, np.float16)], np.float32),
}


@pytest.mark.parametrize(("tree", "dtype"), TREES.values(), ids=TREES)
def test_widest_floating_type(tree, dtype):
    assert dtype_of(tree) == dtype


def test_random_keys_do_not_count():
    assert dtype_of([jax.random.key(0), np.zeros(1)]) == np.float64
