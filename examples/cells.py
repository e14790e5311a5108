"""Cells of two days in an .h5ad file: where each goes, and which fate its descendants have.

    python examples/cells.py [--out cells.png] [--quick]

The cells are made here: one stem on day 0, two branches on day 2, in two components. The target is
a Gaussian mixture of the later day; needs anndata (otflow[anndata]).
"""

import argparse
import tempfile
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import numpy as np

from otflow import transport_cells

parser = argparse.ArgumentParser()
parser.add_argument("--out", default="cells.png")
parser.add_argument("--quick", action="store_true", help="little training")
options = parser.parse_args()

rng = np.random.default_rng(0)
n = 700
stem = rng.standard_normal((n, 2)) * [0.5, 1.6]
upper = rng.random(n) < 0.6
along = rng.gamma(4.0, 0.5, n)
branches = np.column_stack([4 + along, np.where(upper, 1.0, -1.0) * (1 + along)])
branches += 0.35 * rng.standard_normal((n, 2))
cells = anndata.AnnData(
    X=np.zeros((2 * n, 1), np.float32),
    obs={"day": np.repeat([0, 2], n), "fate": np.r_[["stem"] * n, np.where(upper, "A", "B")]},
    obsm={"X_pca": np.concatenate([stem, branches])},
)

anndata.settings.allow_write_nullable_strings = True  # the texts of pandas 3
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "cells.h5ad"
    cells.write_h5ad(path)
    cells = anndata.read_h5ad(path)
quick = {"max_iter": 25, "plan_iter": 50, "max_components": 2} if options.quick else {}
between = transport_cells(cells, "day", 0, 2, obsm="X_pca", seed=0, **quick)

first = np.asarray(cells.obs["day"] == 0)
x, y = (np.asarray(cells.obsm["X_pca"])[part] for part in (first, ~first))
fates = between.fates(x, y, np.asarray(cells.obs["fate"])[~first])
print(f"{fates.shares[:, 0].mean():.3f} of the stem cells go to branch {fates.classes[0]}")
print(f"{np.mean(upper):.3f} of the later cells are there")

figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharex=True, sharey=True, layout="constrained")
for t, axis in zip((0.0, 0.5, 1.0), axes, strict=True):
    axis.plot(*y.T, ".", ms=3, color="#bbbbbb", label="day 2")
    axis.scatter(*between.interpolate(x, t).T, s=5, c=fates.shares[:, 0], cmap="coolwarm")
    axis.set_title(f"cells of day 0 at t = {t:g}", fontsize=11)
figure.supxlabel("component 1")
figure.supylabel("component 2")
figure.savefig(options.out, dpi=80)
