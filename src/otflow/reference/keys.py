"""Seeds and JAX keys to NumPy generators, so that the references sample reproducibly in float64."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np


def generator_from_key(key: Any) -> np.random.Generator:
    """A NumPy generator determined by `key`.

    Arguments:
        key: a non-negative int seed, an old-style JAX key (uint32 words) or a new-style one
            (`jax.random.key`). The two styles of the same JAX key give the same generator; JAX is
            imported only for the new style.

    Raises TypeError for anything else, ValueError for a negative seed or a batch of keys.
    """
    if isinstance(key, bool):
        raise TypeError(f"Expected key to be an int seed or a JAX PRNG key; got {key!r}.")
    if isinstance(key, numbers.Integral):
        if key < 0:
            raise ValueError(f"Expected a seed >= 0; got key={key!r}.")
        return np.random.default_rng(int(key))
    if not hasattr(key, "dtype") or not hasattr(key, "shape"):
        raise TypeError(f"Expected key to be an int seed or a JAX PRNG key; got {type(key)}.")
    words = _key_words(key)
    if words.dtype != np.uint32:
        raise TypeError(f"Expected the key's words to be uint32; got dtype {words.dtype}.")
    if words.ndim != 1:
        raise ValueError(
            f"Expected a single key; got a batch whose words have shape {words.shape}."
        )
    return np.random.default_rng([int(word) for word in words])


def _key_words(key: Any) -> np.ndarray:
    if isinstance(key, np.ndarray):
        return key
    import jax

    if jax.numpy.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    return np.asarray(key)
