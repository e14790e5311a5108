"""Computing in a chosen precision without touching anybody's global JAX settings."""

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from otflow.support.compiling import within_jax

Tree = TypeVar("Tree")


@contextlib.contextmanager
def precision(dtype: object) -> Iterator[None]:
    """A context in which JAX's default floating type is `dtype`, float32 or float64.

    Products of float32 matrices have float32's precision there: a GPU's default, with 10 bits, is
    too coarse for inverses and exact likelihoods. `default_rules` hold.

    Raises:
        ValueError: another dtype.
    """
    try:
        # NumPy reads None as float64
        name = "None" if dtype is None else np.dtype(dtype).name  # type: ignore[call-overload]
    except TypeError:
        name = repr(dtype)
    if name not in ("float32", "float64"):
        raise ValueError(f"dtype: expected 'float32' or 'float64'; got {name}.")
    x64 = jax.enable_x64(name == "float64")
    with x64, jax.default_matmul_precision("highest"), default_rules():
        yield


@contextlib.contextmanager
def default_rules() -> Iterator[None]:
    """A context in which JAX promotes types and ranks and moves arrays as it does by default.

    A caller's stricter rules are for the caller's code. A decorator too.
    """
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.transfer_guard("allow"),
    ):
        yield


@contextlib.contextmanager
def own_precision(tree: object, arguments: object = None) -> Iterator[None]:
    """`precision` of a tree's own type, to compute with it and the arguments.

    Raises:
        ValueError: float64, within jit, grad or vmap while JAX's x64 mode is off: what JAX does
            with the result, later, would be float32.
    """
    dtype = dtype_of(tree)
    off = not jax.config.read("jax_enable_x64")
    if dtype == np.float64 and off and within_jax((tree, arguments)):
        raise ValueError(
            "dtype: expected a computation in float32 within jit, grad or vmap while JAX's x64 "
            "mode is off; got float64. Call the transformed function within "
            '`otflow.precision.precision("float64")`, or set jax_enable_x64.'
        )
    with precision(dtype):
        yield


def dtype_of(tree: object) -> np.dtype:
    """The widest floating type among the arrays of a tree; float32 where there is none."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    floating = [leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return np.result_type(np.float32, *floating)


def cast(tree: Tree, dtype: Any) -> Tree:
    """The tree with every floating array, NumPy's too, as a JAX array of `dtype`."""

    def leaf(value: Any) -> Any:
        if hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating):
            return jnp.asarray(value, dtype)
        return value

    with precision(dtype):
        return jax.tree.map(leaf, tree)
