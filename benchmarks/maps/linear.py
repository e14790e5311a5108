"""The optimal maps between the Gaussians of the same moments."""

import numpy as np

from maps.base import Map, Maps, Task
from otflow.potentials import GaussianBase
from otflow.support.precision import precision


def solve(task: Task) -> Maps:
    """From the rows' moments."""
    return Maps(between(task.x, task.y), between(task.y, task.x))


def between(x: np.ndarray, y: np.ndarray) -> Map:
    """The map of Bures from the moments of x to those of y."""
    moments = [f(z) for z in (x, y) for f in (_mean, _cov)]

    def apply(rows: np.ndarray) -> np.ndarray:
        with precision("float64"):
            base = GaussianBase.solve(moments[0], moments[1], 1e9, moments[2], moments[3])
            return rows - np.asarray(base.gradient(rows, 0.0))[:, :-1]

    return apply


def _mean(x: np.ndarray) -> np.ndarray:
    return x.mean(axis=0)


def _cov(x: np.ndarray) -> np.ndarray:
    return np.cov(x, rowvar=False)
