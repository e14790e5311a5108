"""The rows that all contestants train on and are scored on, standardised, in one file a set."""

import dataclasses
from pathlib import Path

import numpy as np

from otflow import datasets
from peers.base import Setup

ROWS = 20_000
SETS = ("8gaussians", "moons", "pinwheel", "gas_turbine", "digits")
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"

# Toys: the published network and weights, and its script's CPU batch and number of steps.
SETUPS = {
    "8gaussians": Setup(alpha=30.0, beta=1.0, rate=5e-3),
    "moons": Setup(alpha=8.0, beta=1.0, rate=5e-3),
    "pinwheel": Setup(alpha=30.0, beta=15.0, rate=5e-3),
    "gas_turbine": Setup(width=64, n_steps=8, alpha=100.0, batch=1024, total_steps=1000),
    "digits": Setup(width=64, n_steps=8, alpha=100.0, beta=0.1, batch=256, total_steps=600),
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a step-time problem: d, width, rows a step and RK4 steps."""

    d: int
    width: int
    n: int
    n_steps: int

    @property
    def setup(self) -> Setup:
        """One step a call on all rows; depth 1, the published nTh = 2."""
        return Setup(width=self.width, n_steps=self.n_steps, batch=self.n)

    def __str__(self) -> str:
        return f"d {self.d}, width {self.width}, n {self.n}, {self.n_steps} steps"


def write_set(name: str, folder: Path, rows: int = ROWS) -> Path | None:
    """Write training and held-out rows of a set; None where its file is not here.

    gas_turbine has 36,733 rows: 20,000 train, the rest is held out. digits: 1,439 and 358. Columns
    are standardised by the training rows, for every contestant; `log_scale` is what that adds to
    the nll in the data's own units.
    """
    if name == "digits":
        split = datasets.digits(0)
        train, held_out = split.train, np.concatenate([split.validation, split.test])
    elif name == "gas_turbine":
        path = SHARED / "gas_turbine.npz"
        if not path.exists():
            return None
        with np.load(path) as archive:
            X = archive["X"].astype(float)
        rng = np.random.default_rng(0)
        X = X[rng.permutation(len(X))]
        X = X + 1e-3 * X.std(axis=0) * rng.uniform(size=X.shape)  # columns of about 800 levels
        train, held_out = X[:ROWS], X[ROWS:]
    else:
        train, held_out = datasets.toy(name, ROWS, 0), datasets.toy(name, ROWS, 1)
    return _write(folder / f"{name}-{rows}.npz", train[:rows], held_out[:rows])


def write_shape(d: int, n: int, folder: Path) -> Path:
    """Write n rows of a mixture of two Gaussians in d dimensions, whatever the sizes."""
    rng = np.random.default_rng(0)
    centres = 1.5 * rng.standard_normal((2, d))
    rows = centres[rng.integers(2, size=n)] + rng.standard_normal((n, d))
    return _write(folder / f"mixture-{d}-{n}.npz", rows, rows[:2000])


def _write(path: Path, train: np.ndarray, held_out: np.ndarray) -> Path:
    mean, scale = train.mean(axis=0), train.std(axis=0)
    parts = {"train": (train - mean) / scale, "held_out": (held_out - mean) / scale}
    parts = {name: part.astype(np.float32) for name, part in parts.items()}
    np.savez(path, **parts, log_scale=np.log(scale).sum())
    return path
