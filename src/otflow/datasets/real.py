"""Small real data sets that ship with scikit-learn, shuffled and split 80/10/10."""

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from jaxtyping import Float, Float64

from otflow.datasets.toy import _generator, _positive_int

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 weights of red, green, blue


@dataclass(frozen=True, eq=False)
class Split:
    """A data set cut into three parts: float64 arrays of shape (rows, features) that share no row.

    `validation` and `test` hold a tenth of the rows each, rounded down; `train` holds the rest.
    """

    train: Float64[np.ndarray, "n_train d"]
    validation: Float64[np.ndarray, "n_validation d"]
    test: Float64[np.ndarray, "n_test d"]
    name: str
    feature_names: tuple[str, ...]


def digits(seed: int = 0, dequantise: bool = True) -> Split:
    """Handwritten digits, 1797 images of 8 x 8 pixels, scaled to [0, 1): 64 columns, row by row.

    Arguments: `seed`, a non-negative integer, drives the shuffle and the noise; `dequantise` adds
    U[0, 1) to the pixel values 0..16. Returns a `Split` with features (x + U)/17, or x/17 without
    dequantisation (for display only: a density of discrete values is unbounded).
    Raises `ImportError` without scikit-learn, `TypeError` or `ValueError` for a bad argument.
    """
    rng = _generator(seed)
    if not isinstance(dequantise, bool):
        raise TypeError(f"Expected dequantise to be a boolean; got {dequantise!r}.")
    pixels = _sklearn_datasets().load_digits().data
    noise = rng.random(pixels.shape) if dequantise else 0.0
    return _split((pixels + noise) / 17.0, rng, "digits", _pixel_names(8))


def breast_cancer(seed: int = 0) -> Split:
    """Wisconsin breast cancer: 569 rows of 30 measurements in their own units, not standardised.

    Arguments: `seed`, a non-negative integer, drives the shuffle. Returns a `Split`. Raises
    `ImportError` without scikit-learn, `TypeError` or `ValueError` for a bad seed.
    """
    rng = _generator(seed)
    table = _sklearn_datasets().load_breast_cancer()
    return _split(
        table.data, rng, "breast_cancer", tuple(str(name) for name in table.feature_names)
    )


def photo_patches(size: int = 8, n: int | None = None, seed: int = 0) -> Split:
    """Square luma patches of scikit-learn's two photographs, in [0, 1), with their means left in.

    The photographs are tiled and the tiles drawn without replacement, so no two patches share a
    pixel, across the split either. Luma is rounded to 0..255 and dequantised: (x + U[0, 1))/256.

    Arguments: `size`, the side in pixels; `n`, how many patches (all when None: 8480 for size 8);
    `seed`, a non-negative integer, drives the shuffle and the noise. Returns a `Split` with size**2
    columns, row by row. Raises `ImportError` without scikit-learn and Pillow, `TypeError` or
    `ValueError` for a bad argument, such as an `n` above the number of tiles.
    """
    size, rng = _positive_int("size", size), _generator(seed)
    if n is not None:
        n = _positive_int("n", n)
    images = _sample_images()
    shortest = min(min(image.shape[:2]) for image in images)
    if size > shortest:
        raise ValueError(f"Expected size to be at most {shortest}; got {size}.")
    tiles = np.concatenate([_tiles(np.rint(image @ _LUMA), size) for image in images])
    n = len(tiles) if n is None else n
    if n > len(tiles):
        raise ValueError(f"Expected n to be at most {len(tiles)} for size {size}; got {n}.")
    chosen = tiles[rng.permutation(len(tiles))[:n]]
    return _split(
        (chosen + rng.random(chosen.shape)) / 256.0, rng, "photo_patches", _pixel_names(size)
    )


def _tiles(image: Float[np.ndarray, "height width"], size: int) -> Float[np.ndarray, "n pixels"]:
    """Cut an image into whole tiles from its top left corner; flatten each, row by row."""
    rows, columns = image.shape[0] // size, image.shape[1] // size
    grid = image[: rows * size, : columns * size].reshape(rows, size, columns, size)
    return grid.transpose(0, 2, 1, 3).reshape(rows * columns, size * size)


def _pixel_names(size: int) -> tuple[str, ...]:
    return tuple(f"pixel_{row}_{column}" for row in range(size) for column in range(size))


def _split(
    x: Float64[np.ndarray, "n d"],
    rng: np.random.Generator,
    name: str,
    feature_names: tuple[str, ...],
) -> Split:
    """Shuffle the rows of `x` and cut them 80/10/10."""
    tenth = len(x) // 10
    shuffled = x[rng.permutation(len(x))]
    train, validation, test = np.split(shuffled, [len(x) - 2 * tenth, len(x) - tenth])
    return Split(train, validation, test, name, feature_names)


def _sklearn_datasets() -> ModuleType:
    """Import scikit-learn's data sets, or say which extra brings them."""
    try:
        import sklearn.datasets
    except ImportError as error:
        raise ImportError("Expected scikit-learn; install otflow[sklearn].") from error
    return sklearn.datasets


def _sample_images() -> list[np.ndarray]:
    """The two photographs as uint8 arrays of shape (height, width, 3)."""
    datasets = _sklearn_datasets()
    try:
        return datasets.load_sample_images().images
    except ImportError as error:
        message = (
            "Expected Pillow, which reads the photographs; install otflow[sklearn] and pillow."
        )
        raise ImportError(message) from error
