"""What both drawings agree on: where images stand, and how long a name may be."""

import math

import numpy as np
from jaxtyping import Float

LABEL, LEGEND, TITLE = 34, 44, 60  # letters that fit an axis, a legend, a heading


def shortened(text: str, most: int) -> str:
    """The text, its end as dots where it is longer."""
    return text if len(text) <= most else text[: most - 3] + "..."


def mosaic(images: Float[np.ndarray, "n height width"], columns: int = 8) -> np.ndarray:
    """Images in lines of `columns`, a pixel of paper (0) between them, values cut to [0, 1]."""
    n, height, width = images.shape
    columns = min(columns, n)
    lines = math.ceil(n / columns)
    grid = np.zeros((lines * (height + 1) + 1, columns * (width + 1) + 1))
    for i, image in enumerate(np.clip(np.nan_to_num(images), 0.0, 1.0)):
        top, left = 1 + i // columns * (height + 1), 1 + i % columns * (width + 1)
        grid[top : top + height, left : left + width] = image
    return grid
