"""The tables of the benchmarks, each cut into training, validation and test rows, z-scored."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from otflow import datasets
from otflow.datasets.tables import Table

DATA = os.environ.get("OTFLOW_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data")
_TOY_ROWS = 20_000


def _scaled(parts: list[np.ndarray], name: str, names: tuple[str, ...], source: str) -> Table:
    shift, scale = parts[0].mean(axis=0), parts[0].std(axis=0)
    scale[scale == 0] = 1
    train, validation, test = ((part - shift) / scale for part in parts)
    return Table(train, validation, test, name, names, shift, scale, source)


def _of_split(loader: Callable, folder: str | Path) -> Table:
    split = loader(0)
    parts = [split.train, split.validation, split.test]
    return _scaled(parts, split.name, split.feature_names, "scikit-learn, seed 0, z-scored")


def _cells(folder: str | Path) -> Table:
    """All times together: 5 components, cut 80/10/10."""
    x = datasets.embryoid_body(folder).x
    x = np.random.default_rng(0).permutation(x)
    tenth = len(x) // 10
    parts = [x[2 * tenth :], x[:tenth], x[tenth : 2 * tenth]]
    names = tuple(f"pc{i}" for i in range(x.shape[1]))
    return _scaled(parts, "embryoid_body", names, "embryoid_body.npz: all times, z-scored")


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
