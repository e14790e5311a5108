"""Loaders of .npz files, on small files of the same arrays."""

import re

import numpy as np
import pytest

from otflow import datasets

RNG = np.random.default_rng(0)
CHANGED = pytest.mark.filterwarnings("ignore:.*expected SHA-256:UserWarning")


def integers(n, d, most=255):
    return RNG.integers(0, most + 1, (n, d)).astype(np.float32)


@CHANGED
def test_patches(tmp_path):
    """Undone: each row plus one mean is a multiple of 1/256, but for noise below 1/256."""
    raw = {"train": integers(30, 64), "val": integers(5, 64), "test": integers(6, 64)}
    np.savez(tmp_path / "bsds300_patches.npz", **raw)
    found = datasets.patches(tmp_path, seed=3)
    assert found.train.shape == (30, 63)
    for rows, name in ((found.train, "train"), (found.validation, "val"), (found.test, "test")):
        last = -rows.sum(axis=1, keepdims=True)
        difference = 256 * np.hstack([rows, last]) - raw[name]
        noise = difference - difference.mean(axis=1, keepdims=True)
        assert np.abs(noise).max() < 1
        assert noise.std() == pytest.approx(np.sqrt(1 / 12), rel=0.1)
    np.testing.assert_array_equal(found.train, datasets.patches(tmp_path, seed=3).train)
    assert not np.allclose(found.train, datasets.patches(tmp_path, seed=4).train)


TABLES = {
    "miniboone_mini": (datasets.miniboone_mini, 43),
    "gas_turbine": (datasets.gas_turbine, 11),
}


@CHANGED
@pytest.mark.parametrize("name", TABLES)
def test_tables_are_shuffled_cut_and_scored(name, tmp_path):
    load, d = TABLES[name]
    x = 3 * RNG.standard_normal((103, d)) + 5
    np.savez(tmp_path / f"{name}.npz", X=x)
    found = load(tmp_path, seed=1)
    parts = [found.train, found.validation, found.test]
    assert [len(p) for p in parts] == [83, 10, 10]
    fitted = np.concatenate(parts[:2])
    np.testing.assert_allclose(
        [fitted.mean(axis=0), fitted.std(axis=0)], [[0] * d, [1] * d], atol=1e-9
    )
    back = np.concatenate(parts) * found.scale + found.shift
    order = np.argsort(back[:, 0])
    np.testing.assert_allclose(back[order], x[np.argsort(x[:, 0])], atol=0.02)
    assert not np.allclose(back, x)


@CHANGED
def test_mnist(tmp_path):
    x = integers(50, 784)
    np.savez(tmp_path / "mnist_t10k.npz", X=x, y=np.arange(50))
    found = datasets.mnist(tmp_path)
    rows = np.concatenate([found.train, found.validation, found.test])
    assert 0 <= rows.min() <= rows.max() < 1
    pixels = np.floor(256 * rows)
    assert sorted(map(tuple, pixels)) == sorted(map(tuple, x))


@CHANGED
def test_populations(tmp_path):
    x, t = RNG.standard_normal((40, 7)) * 4, np.repeat([0.0, 1.0, 2.0, 3.0], 10)
    np.savez(tmp_path / "embryoid_body.npz", X=x, t=t)
    np.savez(tmp_path / "sc_lineage_2d.npz", X=x[:, :2], t=t)
    cells = datasets.embryoid_body(tmp_path, components=3)
    assert cells.times == (0.0, 1.0, 2.0, 3.0)
    np.testing.assert_allclose(cells.x * cells.scale + cells.shift, x[:, :3], rtol=1e-6)
    np.testing.assert_allclose(cells.x.std(axis=0), 1)
    np.testing.assert_array_equal(cells.at(2.0), cells.x[20:30])
    np.testing.assert_array_equal(datasets.sc_lineage_2d(tmp_path).x, x[:, :2])
    with pytest.raises(ValueError, match=r"^time: expected one of \(0.0, .*; got 9"):
        cells.at(9)
    with pytest.raises(ValueError, match=r"^components: expected at most 7; got 8"):
        datasets.embryoid_body(tmp_path, components=8)


@CHANGED
def test_w2pair(tmp_path):
    arrays = {name: RNG.random((4, 2)) for name in ("x_train", "y_train", "x_test", "y_test")}
    arrays |= {"weights": np.ones(1), "means": np.zeros((1, 2)), "covs": np.eye(2)[None]}
    arrays |= {"half_w2_squared": np.float64(2.0), "y_total_variance": np.float64(3.0)}
    np.savez(tmp_path / "w2pair_2d.npz", **arrays)
    found = datasets.w2pair(2, tmp_path)
    np.testing.assert_array_equal(found.y_test, arrays["y_test"])
    assert (found.half_w2_squared, found.y_total_variance) == (2.0, 3.0)
    with pytest.raises(ValueError, match=r"^dim: expected 2, 8 or 32; got 3"):
        datasets.w2pair(3, tmp_path)


def test_another_version_of_a_file_is_told(tmp_path):
    np.savez(tmp_path / "sc_lineage_2d.npz", X=np.ones((3, 2)), t=np.arange(3))
    with pytest.warns(UserWarning, match="^sc_lineage_2d.npz: expected SHA-256"):
        datasets.sc_lineage_2d(tmp_path)


@CHANGED
def test_damaged_files(tmp_path):
    path = tmp_path / "sc_lineage_2d.npz"
    np.savez(path, X=np.ones((3, 2)))
    with pytest.raises(ValueError, match=re.escape("expected arrays X, t")):
        datasets.sc_lineage_2d(tmp_path)
    np.savez(path, X=np.array([{}], dtype=object), t=np.ones(1))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        datasets.sc_lineage_2d(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^expected mnist_t10k.npz in .*; got none"):
        datasets.mnist(tmp_path)
