"""Models that tests of the interface share: trained once a session, saved, loaded afresh by each.

`trained("rk4")`, the fixture of conftest, is a new copy of one; `trained.path("rk4")` its file.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
from filelock import FileLock

from otflow import OTFlow, load
from otflow.datasets import toy
from tests.fakes import SMALL

MOONS, MOONS_VAL = toy("moons", 512, 0), toy("moons", 256, 1)
_RNG = np.random.default_rng(0)
CONDITIONS = np.column_stack([_RNG.normal(50.0, 7.0, 200), _RNG.integers(2, size=200)])
CONDITIONED = CONDITIONS @ [[0.2, -0.5], [3.0, 0.0]] + _RNG.standard_normal((200, 2))
FRAME = pandas.DataFrame({"income": _RNG.gamma(2.0, 1.0, 300), "visits": _RNG.poisson(6.0, 300)})
LINE = _RNG.standard_normal((200, 1)) ** 3

CONFORMING = SMALL | {"scheme": "conforming", "n_steps": 3}
RK4 = SMALL | {
    "n_steps": 4,
    "alpha": 10.0,
    "beta": 0.5,
    "max_iter": 50,
    "batch_size": 128,
    "learning_rate": 0.03,
}
MODELS: dict[str, Callable[[], OTFlow]] = {
    "conforming": lambda: OTFlow(**CONFORMING).fit(MOONS, X_val=MOONS_VAL),
    "rk4": lambda: OTFlow(**RK4).fit(MOONS, X_val=MOONS_VAL),
    "conditional": lambda: OTFlow(**CONFORMING).fit(CONDITIONED, condition=CONDITIONS),
    "mapped columns": lambda: OTFlow(
        **CONFORMING, bounds={"income": (0, None), "visits": (0, None)}, dequantize={"visits": 1}
    ).fit(FRAME),
    "one column": lambda: OTFlow(**CONFORMING).fit(LINE),
}


@dataclasses.dataclass(frozen=True)
class Trained:
    """The session's models in a folder that all its workers share."""

    folder: Path

    def path(self, name: str) -> Path:
        """The file of a model, trained now if no worker has yet."""
        file = self.folder / f"{name.replace(' ', '_')}.otflow"
        with FileLock(f"{file}.lock"):
            if not file.exists():
                MODELS[name]().save(file)
        return file

    def __call__(self, name: str) -> OTFlow:
        return load(self.path(name))
