"""Cells of two times in an AnnData object: who is carried, where the result is, what is refused."""

import numpy as np
import pytest

from otflow.estimator.cells import cells_at, read_cells, transport_cells, write_cells
from tests.cells import cells
from tests.fakes import no_training

QUICK = {"max_components": 1, "n_steps": 1, "width": 4, "plan_iter": 0}


@pytest.fixture(autouse=True)
def untrained(monkeypatch):
    no_training(monkeypatch)


@pytest.mark.parametrize(("kind", "times"), [("number", (0, 1)), ("text", ("early", "late"))])
def test_the_cells_of_one_time_are_carried(kind, times):
    adata = cells(kind)
    between = transport_cells(adata, "day", *times, obsm="X_pca", **QUICK)
    found = adata.obsm[f"X_pca_at_{times[1]}"]
    x = np.asarray(adata.obsm["X_pca"])
    np.testing.assert_array_equal(found[:40], between.transform(x[:40]))
    assert np.isnan(found[40:]).all()
    assert np.abs(found[:40].mean(axis=0) - x[40:80].mean(axis=0)).max() < 0.3


def test_genes_go_to_a_layer():
    from scipy import sparse

    adata = cells()
    adata.X = sparse.csr_matrix(adata.X)
    transport_cells(adata, "day", "0", 1.0, key="moved", **QUICK)
    assert np.isfinite(adata.layers["moved"][:40]).all()
    assert list(adata.obsm) == ["X_pca"]


def test_files(tmp_path):
    adata = cells()
    transport_cells(adata, "day", 0, 1, obsm="X_pca", **QUICK)
    write_cells(tmp_path / "m.h5ad", adata)
    again = read_cells(tmp_path / "m.h5ad")
    np.testing.assert_array_equal(again.obsm["X_pca_at_1"], adata.obsm["X_pca_at_1"])
    assert [path.name for path in tmp_path.iterdir()] == ["m.h5ad"]
    (tmp_path / "bad.h5ad").write_bytes(b"no file of HDF5")
    with pytest.raises(ValueError, match=r"bad\.h5ad: not a readable"):
        read_cells(tmp_path / "bad.h5ad")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_cells(tmp_path / "none.h5ad")


def test_categories_and_float32(tmp_path):
    adata = cells("text")
    adata.obs["day"] = adata.obs["day"].astype("category")
    adata.obsm["X_pca"] = adata.obsm["X_pca"].astype("float32")
    write_cells(tmp_path / "m.h5ad", adata)
    again = read_cells(tmp_path / "m.h5ad")
    assert cells_at(again, "day", "late", "end").sum() == 40
    transport_cells(again, "day", "early", "late", obsm="X_pca", **QUICK)
    write_cells(tmp_path / "m.h5ad", again)
    assert np.isfinite(read_cells(tmp_path / "m.h5ad").obsm["X_pca_at_late"][:40]).all()


BAD = {
    "a column": (("hour", 0, 1), {}, "^time: expected one of obs' columns: day; got 'hour'"),
    "a start": (("day", 7, 1), {}, r"^start: expected a value of obs\['day'\]: 0, 1, 2; got 7"),
    "a text": (("day", 0, "late"), {}, r"^end: expected a value of .*: 0, 1, 2; got 'late'"),
    "a key": (("day", 0, 1), {"obsm": "X_umap"}, "^obsm: expected one of its keys: X_pca; got"),
    "taken": (("day", 0, 1), {"key": "X_pca"}, "^key: expected one that obsm does not have"),
}


@pytest.mark.parametrize(("given", "options", "message"), BAD.values(), ids=BAD)
def test_bad_arguments(given, options, message):
    adata = cells()
    with pytest.raises(ValueError, match=message):
        transport_cells(adata, *given, **{"obsm": "X_pca"} | options)
    assert list(adata.obsm) == ["X_pca"]


def test_cells_without_numbers():
    adata = cells()
    adata.obsm["X_pca"][3] = np.nan
    with pytest.raises(ValueError, match=r"^X_pca: expected finite numbers"):
        transport_cells(adata, "day", 0, 1, obsm="X_pca")
