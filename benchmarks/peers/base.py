"""What every contestant offers, so that all are timed and scored in the same way."""

import abc
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

Level = Any  # how hard a solve tries: a tolerance, a number of steps, or [steps, trace]
CHUNK = 4096  # rows scored or sampled in one call


@dataclasses.dataclass(frozen=True)
class Setup:
    """One problem, the same for every contestant; each reads the fields that apply to it.

    Attributes:
        width, depth: of the OT-Flow networks; other peers take max(64, width) units a layer.
        n_steps: RK4 steps; the conforming scheme has its own.
        alpha, beta: weights of nll and hjb in the OT-Flow objective.
        batch: rows a step; all rows where there are fewer.
        total_steps: length of the learning-rate schedule.
        block: optimiser steps a call of `step`.
        rate: learning rate of the flows without an OT-Flow objective (Adam).
        seed: of the network and the batches.
    """

    width: int = 32
    depth: int = 1
    n_steps: int = 8
    alpha: float = 30.0
    beta: float = 1.0
    batch: int = 2048
    total_steps: int = 1000
    block: int = 1
    rate: float = 1e-3
    seed: int = 0


class Contestant(abc.ABC):
    """A flow from data to N(0, I) that can be trained, scored and sampled.

    `levels` are the settings offered for scoring and sampling, from rough to fine; level None is
    the one used in training. `tight` asks for the same model solved in float64 far more finely
    than any level: what accuracy is measured against.
    """

    levels: tuple[Level, ...] = (None,)

    @abc.abstractmethod
    def build(self, x: np.ndarray, setup: Setup) -> None:
        """Forget everything and prepare training on x (n, d), float32, standardised."""

    @abc.abstractmethod
    def step(self) -> None:
        """Take `setup.block` optimiser steps and wait for them."""

    @abc.abstractmethod
    def log_prob(self, x: np.ndarray, level: Level = None, tight: bool = False) -> np.ndarray:
        """Log-density of the rows, nats, shape (n,)."""

    @abc.abstractmethod
    def sample(self, z: np.ndarray, level: Level = None, tight: bool = False) -> np.ndarray:
        """Where draws z (n, d) of N(0, I) go: samples, shape (n, d)."""

    @property
    def weights(self) -> Any:
        """A copy of what training has reached, for `weights = ...` to return to."""
        raise NotImplementedError

    @weights.setter
    def weights(self, kept: Any) -> None:
        raise NotImplementedError

    def first_fit(self, x: np.ndarray, setup: Setup) -> None:
        """What a fresh process does until the first optimiser step is taken."""
        self.build(x, setup)
        self.step()

    def matmul(self, size: int) -> None:
        """One float32 product of two square matrices by the contestant's own library."""
        raise NotImplementedError


def batches(n: int, batch: int, seed: int) -> Iterator[np.ndarray]:
    """Row numbers (int32) of one batch after another: shuffles laid end to end, none dropped."""
    if batch >= n:
        while True:
            yield np.arange(n, dtype=np.int32)
    rng = np.random.default_rng(seed)
    left = np.empty(0, np.int32)
    while True:
        while left.size < batch:
            left = np.concatenate([left, rng.permutation(n).astype(np.int32)])
        yield left[:batch]
        left = left[batch:]


def in_chunks(function: Any, x: np.ndarray) -> np.ndarray:
    """function(rows) over chunks of rows, stacked."""
    return np.concatenate([function(x[i : i + CHUNK]) for i in range(0, len(x), CHUNK)])


def interval(scores: np.ndarray) -> tuple[float, float]:
    """Mean nll and half of its 95 % interval."""
    return -float(np.mean(scores, dtype=np.float64)), float(
        1.96 * np.std(scores, dtype=np.float64) / np.sqrt(len(scores))
    )
