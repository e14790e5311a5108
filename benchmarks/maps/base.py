"""What a solver is asked and what it gives: the same information and seconds for all."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from otflow.datasets import MapPair

Map = Callable[[np.ndarray], np.ndarray]
LEAGUES = ("samples", "density")


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """Two measures: rows of Q always; of P rows (league "samples") or its density ("density").

    Where P's density is known, `x` are as many fresh draws of it as there were rows, and `batches`
    never ends drawing.
    """

    pair: MapPair
    league: str
    seconds: float
    seed: int = 0
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def dim(self) -> int:
        """d."""
        return self.pair.means.shape[1]

    @property
    def knows_p(self) -> bool:
        """Whether P's density is known."""
        return self.league == "density"

    @property
    def x(self) -> np.ndarray:
        """Rows of P."""
        if not self.knows_p:
            return self.pair.x_train
        return self._draw(np.random.default_rng([self.seed, 1]), len(self.pair.x_train))

    @property
    def y(self) -> np.ndarray:
        """Rows of Q."""
        return self.pair.y_train

    def batches(self, of_p: bool, size: int, seed: int) -> Iterator[np.ndarray]:
        """Batches of P or Q for ever: fresh draws where there are some, else rows again."""
        rng = np.random.default_rng([self.seed, seed])
        rows = self.y if not of_p else None if self.knows_p else self.x
        while True:
            if rows is None:
                yield self._draw(rng, size)
            else:
                yield rows[rng.integers(len(rows), size=size)]

    def _draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        pair = self.pair
        component = rng.choice(len(pair.weights), n, p=pair.weights / pair.weights.sum())
        noise = rng.standard_normal((n, self.dim))
        factors = np.linalg.cholesky(pair.covs)
        return pair.means[component] + np.einsum("nde,ne->nd", factors[component], noise)


@dataclasses.dataclass(frozen=True, eq=False)
class Maps:
    """From P to Q, and back where the solver has it."""

    forward: Map
    back: Map | None = None
