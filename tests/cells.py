"""A small AnnData object of cells at three times."""

from typing import Any

import numpy as np


def cells(kind: str = "number") -> Any:
    """40 cells of days 0 and 1 and 5 of day 2, in X (three genes) and in two components."""
    import anndata

    rng = np.random.default_rng(0)
    day = np.repeat([0, 1, 2], [40, 40, 5])
    x = rng.standard_normal((85, 2)) + np.array([5.0, 0.0]) * day[:, None]
    days = day if kind == "number" else np.array(["early", "late", "last"])[day]
    genes = np.column_stack([x, x.sum(axis=1) + rng.standard_normal(85)])
    return anndata.AnnData(X=genes, obs={"day": days}, obsm={"X_pca": x})
