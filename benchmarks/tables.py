"""The tables of the benchmarks, each cut into training, validation and test rows, z-scored."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from otflow import datasets
from otflow.datasets.tables import Table, cut_tail, numbered, standardised

DATA = os.environ.get("OTFLOW_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data")
_TOY_ROWS = 20_000


def _of_split(loader: Callable, folder: str | Path) -> Table:
    split = loader(0)
    parts = (split.train, split.validation, split.test)
    return standardised(parts, split.name, split.feature_names, "scikit-learn, seed 0, z-scored")


def _cells(folder: str | Path) -> Table:
    """All times together: 5 components, shuffled, the tails held out."""
    x = np.random.default_rng(0).permutation(datasets.embryoid_body(folder).x)
    source = "embryoid_body.npz: all times, z-scored"
    return standardised(cut_tail(x), "embryoid_body", numbered("pc", x.shape[1]), source)


def _toy(name: str, folder: str | Path) -> Table:
    """In its own units, as its published figures are."""
    parts = [datasets.toy(name, n, seed) for seed, n in enumerate((_TOY_ROWS, 4000, _TOY_ROWS))]
    return Table(*parts, name, ("x0", "x1"), np.zeros(2), np.ones(2), "drawn, own units")


PUBLISHED = ("power", "gas", "hepmass", "miniboone", "bsds300", "patches")
SMALL = ("miniboone_mini", "gas_turbine")
LOADERS: dict[str, Callable[[str | Path], Table]] = {
    name: getattr(datasets, name) for name in PUBLISHED + SMALL
}
LOADERS |= {
    "embryoid_body": _cells,
    "digits": partial(_of_split, datasets.digits),
    "breast_cancer": partial(_of_split, datasets.breast_cancer),
}
LOADERS |= {
    name: partial(_toy, name) for name in ("moons", "pinwheel", "8gaussians", "checkerboard")
}
