"""Applying a compiled function to many rows with bounded memory and no recompilation."""

from collections.abc import Callable
from typing import Any

import numpy as np


def map_rows(function: Callable[[Any], Any], x: np.ndarray, batch_size: int = 4096) -> np.ndarray:
    """function(x), computed batch by batch; the last batch is padded to the common shape.

    Args:
        function: maps (k, d) to an array whose first axis is k, row by row.
        x: (n, d), n >= 1.
        batch_size: rows a call; fewer rows than that run as one call of the next power of two.

    Returns:
        The results stacked, as NumPy.
    """
    n = x.shape[0]
    size = min(batch_size, 1 << (n - 1).bit_length())
    results = []
    for start in range(0, n, size):
        rows = x[start : start + size]
        k = rows.shape[0]
        if k < size:
            rows = np.concatenate([rows, np.broadcast_to(rows[-1:], (size - k, *rows.shape[1:]))])
        results.append(np.asarray(function(rows))[:k])
    return np.concatenate(results)
