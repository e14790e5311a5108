"""A stand-in for anndata where it is not installed: an object of arrays in an .npz file."""

import pickle
import sys
from types import ModuleType
from typing import Any

import numpy as np


class AnnData:
    """What otflow uses of anndata.AnnData."""

    def __init__(self, X: Any = None, obs: Any = None, obsm: Any = None):
        import pandas

        self.X, self.obsm, self.layers = X, dict(obsm or {}), {}
        self.obs = pandas.DataFrame(obs)

    def write_h5ad(self, path: Any) -> None:
        """The object as one file."""
        with open(path, "wb") as file:
            pickle.dump(self, file)


def read_h5ad(path: Any) -> AnnData:
    """What `write_h5ad` wrote."""
    with open(path, "rb") as file:
        return pickle.load(file)


def anndata_module(monkeypatch: Any) -> Any:
    """anndata, or the stand-in in its place."""
    try:
        import anndata

        return anndata
    except ImportError:
        module = ModuleType("anndata")
        module.AnnData, module.read_h5ad = AnnData, read_h5ad
        monkeypatch.setitem(sys.modules, "anndata", module)
        return module


def cells(module: Any, kind: str = "number") -> Any:
    """40 cells of days 0 and 1 and 5 of day 2, in X (three genes) and in two components."""
    rng = np.random.default_rng(0)
    day = np.repeat([0, 1, 2], [40, 40, 5])
    x = rng.standard_normal((85, 2)) + np.array([5.0, 0.0]) * day[:, None]
    days = day if kind == "number" else np.array(["early", "late", "last"])[day]
    genes = np.column_stack([x, x.sum(axis=1) + rng.standard_normal(85)])
    return module.AnnData(X=genes, obs={"day": days}, obsm={"X_pca": x})
