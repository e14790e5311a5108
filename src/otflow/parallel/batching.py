"""Applying a compiled function to many rows with bounded memory and no recompilation."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def map_rows(function: Callable[[Any], Any], x: np.ndarray, batch_size: int = 4096) -> Any:
    """function(x), computed batch by batch; the last batch is padded to the common shape.

    Beside x and the results no more than a few batches are held.

    Args:
        function: maps (k, d) to a tree of arrays whose first axis is k, row by row.
        x: (n, d), n >= 1.
        batch_size: rows a call; fewer rows than that run as one call of the next power of two.

    Returns:
        The results stacked: the tree, of NumPy arrays.
    """
    n = x.shape[0]
    size = min(batch_size, 1 << (n - 1).bit_length())
    stacked: list[np.ndarray] = []
    for start in range(0, n, size):
        rows = x[start : start + size]
        k = rows.shape[0]
        if k < size:
            rows = np.concatenate([rows, np.broadcast_to(rows[-1:], (size - k, *rows.shape[1:]))])
        leaves, structure = jax.tree.flatten(function(rows))
        parts = [np.asarray(leaf) for leaf in leaves]
        if not stacked:
            stacked = [np.empty((n, *part.shape[1:]), part.dtype) for part in parts]
        for whole, part in zip(stacked, parts, strict=True):
            whole[start : start + k] = part[:k]
    return jax.tree.unflatten(structure, stacked)
