"""The data sets that ship with scikit-learn: content, split, seeds, errors."""

import dataclasses
import sys

import numpy as np
import pytest

from otflow.datasets import Split, breast_cancer, digits, photo_patches

sklearn_datasets = pytest.importorskip("sklearn.datasets")
pytest.importorskip("PIL")


def stacked(split: Split) -> np.ndarray:
    return np.concatenate((split.train, split.validation, split.test))


def sorted_rows(x: np.ndarray) -> np.ndarray:
    return x[np.lexsort(x.T[::-1])]


LOADERS = [digits, breast_cancer, lambda seed: photo_patches(8, 500, seed)]


@pytest.mark.parametrize(
    ("loader", "sizes", "d", "name"),
    [
        (LOADERS[0], (1439, 179, 179), 64, "digits"),
        (LOADERS[1], (457, 56, 56), 30, "breast_cancer"),
        (LOADERS[2], (400, 50, 50), 64, "photo_patches"),
    ],
)
def test_shapes_and_seeds(loader, sizes, d, name) -> None:
    split = loader(seed=0)
    parts = (split.train, split.validation, split.test)
    assert tuple(len(part) for part in parts) == sizes
    assert all(part.shape[1] == d and part.dtype == np.float64 for part in parts)
    assert split.name == name
    assert len(set(split.feature_names)) == d
    np.testing.assert_array_equal(stacked(split), stacked(loader(seed=0)))
    assert not np.array_equal(stacked(split), stacked(loader(seed=1)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        split.name = "other"


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_bad_seed(loader, seed, error) -> None:
    with pytest.raises(error, match=r"\bseed\b"):
        loader(seed=seed)


@pytest.mark.parametrize("dequantise", [True, False])
def test_digits_hold_every_image_once(dequantise) -> None:
    x = stacked(digits(2, dequantise=dequantise))
    assert x.min() >= 0
    assert x.max() < 1
    pixels = np.floor(17 * x) if dequantise else np.rint(17 * x)
    expected = sklearn_datasets.load_digits().data
    np.testing.assert_array_equal(sorted_rows(pixels), sorted_rows(expected))


def test_digits_noise_is_uniform_and_independent_of_the_pixels() -> None:
    x = 17 * stacked(digits(0))
    noise = x - np.floor(x)
    error = 1 / np.sqrt(12 * noise.size)
    assert abs(noise.mean() - 0.5) < 5 * error
    assert abs(noise.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / noise.size)
    assert abs(np.corrcoef(noise.ravel(), np.floor(x).ravel())[0, 1]) < 5 / np.sqrt(noise.size)


def test_digits_dequantise_must_be_boolean() -> None:
    with pytest.raises(TypeError, match="dequantise"):
        digits(0, dequantise=1)


def test_breast_cancer_holds_every_row_once() -> None:
    expected = sklearn_datasets.load_breast_cancer()
    split = breast_cancer(3)
    np.testing.assert_array_equal(sorted_rows(stacked(split)), sorted_rows(expected.data))
    assert split.feature_names == tuple(expected.feature_names)


def test_patches_are_the_tiles_of_the_photographs() -> None:
    # All tiles, found again one by one in the images by plain slicing.
    size = 61  # 7 x 10 tiles an image, with a margin left on both sides
    split = photo_patches(size, seed=4)
    patches = np.floor(256 * stacked(split)).astype(int)
    assert len(patches) == 2 * 7 * 10
    expected = []
    for image in sklearn_datasets.load_sample_images().images:
        red, green, blue = (image[..., channel].astype(float) for channel in range(3))
        luma = np.rint(0.299 * red + 0.587 * green + 0.114 * blue)
        for row in range(7):
            for column in range(10):
                tile = luma[61 * row : 61 * row + 61, 61 * column : 61 * column + 61]
                expected.append(tile.ravel())
    np.testing.assert_array_equal(sorted_rows(patches), sorted_rows(np.array(expected)))


def test_patches_default_to_all_tiles_in_the_unit_interval() -> None:
    x = stacked(photo_patches())
    assert x.shape == (8480, 64)
    assert x.min() >= 0
    assert x.max() < 1
    # Neighbouring pixels are alike, whole patches differ: pixel order and means survived.
    pixels = x.reshape(-1, 8, 8)
    assert np.corrcoef(pixels[:, :, :-1].ravel(), pixels[:, :, 1:].ravel())[0, 1] > 0.9
    assert x.mean(axis=1).std() > 0.1


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"n": 0}, ValueError, "n"),
        ({"n": -2}, ValueError, "n"),
        ({"n": 3.0}, TypeError, "n"),
        ({"n": True}, TypeError, "n"),
        ({"n": 8481}, ValueError, "n"),
        ({"size": 0}, ValueError, "size"),
        ({"size": 428}, ValueError, "size"),
        ({"size": 8.0}, TypeError, "size"),
    ],
)
def test_bad_patches(arguments, error, name) -> None:
    with pytest.raises(error, match=rf"\b{name}\b"):
        photo_patches(**arguments)


@pytest.mark.parametrize("loader", LOADERS)
def test_missing_scikit_learn_names_the_extra(loader, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"otflow\[sklearn\]"):
        loader(seed=0)


def test_missing_pillow_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"otflow\[sklearn\]"):
        photo_patches()
