"""The published tables from small files in the published formats; POWER's own where it is here."""

import contextlib
import gzip
import os
import types
from pathlib import Path

import numpy as np
import pytest

from otflow.datasets import bsds300, gas, hepmass, miniboone, power, published
from otflow.datasets.tables import cut_tail

RNG = np.random.default_rng(0)
LOADERS = (power, gas, hepmass, miniboone, bsds300)


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def household(n=237):
    """Rows of POWER's eight columns, on their grids."""
    steps = np.array([0.001, 0.001, 0.01, 0.1, 1, 1, 1, 1])
    return RNG.integers(0, 300, (n, 8)) * steps


def test_power_by_the_published_recipe(tmp_path):
    """Step by step as published: rows shuffled in place, columns deleted, noise stacked."""
    x = household()
    write(tmp_path / "power" / "data.npy", x)
    found = power(tmp_path)
    rng, data = np.random.RandomState(42), x.copy()
    rng.shuffle(data)
    n = len(data)
    data = np.delete(np.delete(data, 3, axis=1), 1, axis=1)
    voltage, gap, sub = 0.01 * rng.rand(n, 1), 0.001 * rng.rand(n, 1), rng.rand(n, 3)
    data = data + np.hstack((gap, voltage, sub, np.zeros((n, 1))))
    test, rest = data[-int(0.1 * n) :], data[: -int(0.1 * n)]
    k = int(0.1 * len(rest))
    mean, scale = rest.mean(axis=0), rest.std(axis=0)
    for part, rows in zip(
        (found.train, found.validation, found.test), (rest[:-k], rest[-k:], test), strict=True
    ):
        np.testing.assert_allclose(part, (rows - mean) / scale, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.test * found.scale + found.shift, test, rtol=1e-12)
    assert len(found.feature_names) == 6


def test_power_npz_is_preferred_and_its_checksum_compared(tmp_path):
    write(tmp_path / "power" / "data.npy", household())
    np.savez(tmp_path / "power.npz", X=household(100).astype(np.float32))
    with pytest.warns(UserWarning, match=r"^power.npz: expected SHA-256 7b4932e58096\.\.\.; got"):
        found = power(tmp_path)
    assert len(found.train) + len(found.validation) + len(found.test) == 100


def test_power_of_other_columns_is_rejected(tmp_path):
    write(tmp_path / "power" / "data.npy", np.ones((20, 7)))
    with pytest.raises(ValueError, match=r"expected shape \(n, 8\); got \(20, 7\)"):
        power(tmp_path)


def test_a_gaussian_scores_as_published_on_power():
    """-7.73 nats; the paper has -7.74 for its own noise."""
    folder = os.environ.get("OTFLOW_DATA", "")
    if not folder or not (Path(folder) / "power.npz").exists():
        pytest.skip("needs power.npz in the folder that OTFLOW_DATA names")
    found = power(folder)
    mean, cov = found.train.mean(axis=0), np.cov(found.train, rowvar=False)
    r = np.linalg.solve(np.linalg.cholesky(cov), (found.test - mean).T)
    score = -0.5 * (r**2).sum(axis=0).mean() - 0.5 * np.linalg.slogdet(2 * np.pi * cov)[1]
    assert score == pytest.approx(-7.7276, abs=1e-3)


def sensors(n=200):
    """Sixteen columns, of which 1 and 2 nearly repeat 0, and 5 repeats 4."""
    x = RNG.standard_normal((n, 6))
    x[:, 1], x[:, 2] = x[:, 0] + 1e-3 * x[:, 1], x[:, 0] + 1e-3 * x[:, 2]
    x[:, 5] = 2 * x[:, 4] + 1e-3 * x[:, 5]
    return x


def test_gas_drops_the_first_of_correlated_columns(tmp_path):
    x = sensors()
    write(tmp_path / "gas" / "ethylene_CO.npy", np.hstack([RNG.standard_normal((200, 3)), x]))
    found = gas(tmp_path)
    assert found.feature_names == ("sensor2", "sensor3", "sensor5")
    kept = x[:, [2, 3, 5]]
    z = (kept - kept.mean(axis=0)) / kept.std(axis=0, ddof=1)
    for part, rows in zip((found.train, found.validation, found.test), cut_tail(z), strict=True):
        np.testing.assert_allclose(part, rows, rtol=1e-12)


def test_gas_from_csv_by_name(tmp_path):
    polars = pytest.importorskip("polars")
    x = sensors()
    (tmp_path / "gas").mkdir()
    columns = dict(zip("abcdef", x.T, strict=True))
    columns |= dict.fromkeys(("Eth", "Meth", "Time"), x[:, 0])
    polars.DataFrame(columns).write_csv(tmp_path / "gas" / "ethylene_CO.csv")
    assert gas(tmp_path).feature_names == ("c", "d", "f")
    polars.DataFrame({"a": x[:, 0]}).write_csv(tmp_path / "gas" / "ethylene_CO.csv")
    with pytest.raises(ValueError, match="expected columns"):
        gas(tmp_path)


def test_gas_never_reads_the_pickle(tmp_path):
    (tmp_path / "gas").mkdir()
    (tmp_path / "gas" / "ethylene_CO.pickle").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(FileNotFoundError, match="which has to be exported"):
        gas(tmp_path)
    write(tmp_path / "gas" / "ethylene_CO.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        gas(tmp_path)


@pytest.mark.parametrize("zipped", [False, True])
def test_hepmass(tmp_path, zipped):
    """Signal only, a discrete column dropped, the test file's extra last column ignored."""
    pytest.importorskip("polars")
    (tmp_path / "hepmass").mkdir()
    tables = {}
    for part, n in (("train", 100), ("test", 40)):
        x = RNG.standard_normal((n, 3))
        x[:, 1] = RNG.integers(0, 3, n)
        label = np.arange(n) % 2
        tables[part] = x[label == 1]
        header, rows = "# label, f0, f1, f2", np.column_stack([label, x])
        if part == "test":
            header, rows = header + ", mass", np.column_stack([rows, np.full(n, 9.0)])
        text = header + "\n" + "\n".join(",".join(map(repr, row)) for row in rows.tolist())
        path = tmp_path / "hepmass" / f"1000_{part}.csv"
        path.write_text(text)
        if zipped:
            path.with_suffix(".csv.gz").write_bytes(gzip.compress(text.encode()))
            path.unlink()
    found = hepmass(tmp_path)
    assert found.feature_names == ("f0", "f2")
    train, test = (tables[part][:, [0, 2]] for part in ("train", "test"))
    mean, scale = train.mean(axis=0), train.std(axis=0, ddof=1)
    np.testing.assert_allclose(found.train, (train[:-5] - mean) / scale, rtol=1e-12)
    np.testing.assert_allclose(found.validation, (train[-5:] - mean) / scale, rtol=1e-12)
    np.testing.assert_allclose(found.test, (test - mean) / scale, rtol=1e-12)


def test_miniboone(tmp_path):
    x = RNG.standard_normal((109, 43)) * 3 + 1
    write(tmp_path / "miniboone" / "data.npy", x)
    found = miniboone(tmp_path)
    assert [len(p) for p in (found.train, found.validation, found.test)] == [90, 9, 10]
    np.testing.assert_allclose(found.test * found.scale + found.shift, x[-10:], rtol=1e-12)
    fitted = np.concatenate([found.train, found.validation])
    np.testing.assert_allclose(fitted.std(axis=0), 1, rtol=1e-12)
    write(tmp_path / "miniboone" / "data.npy", x[:, :5])
    with pytest.raises(ValueError, match=r"expected shape \(n, 43\); got shape \(109, 5\)"):
        miniboone(tmp_path)


def test_bsds300(tmp_path, monkeypatch):
    (tmp_path / "BSDS300").mkdir()
    (tmp_path / "BSDS300" / "BSDS300.hdf5").touch()
    parts = {
        k: RNG.standard_normal((n, 63)) for k, n in (("train", 5), ("validation", 3), ("test", 2))
    }
    fake = types.SimpleNamespace(File=lambda path, mode: contextlib.nullcontext(parts))
    monkeypatch.setattr(published, "require", lambda module, extra: fake)
    found = bsds300(tmp_path)
    for name, rows in parts.items():
        np.testing.assert_array_equal(getattr(found, name), rows)


@pytest.mark.parametrize("load", LOADERS, ids=lambda f: f.__name__)
def test_a_missing_file_says_what_to_get(load, tmp_path, monkeypatch):
    monkeypatch.delenv("OTFLOW_DATA", raising=False)
    with pytest.raises(
        FileNotFoundError, match=r"OTFLOW_DATA; got none.*zenodo.org/records/1161203"
    ):
        load()
    monkeypatch.setenv("OTFLOW_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"^expected .* in {tmp_path}; got none.*zenodo"):
        load()
