"""The order in which rows are used: whole shuffles, one after another."""

import abc
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int

from otflow.data.rows import Rows


class AbstractBatches(abc.ABC):
    """Where the batches of training come from.

    Attributes:
        part: a process is given its own part of every batch; otherwise all of it.
    """

    part: ClassVar[bool] = False

    @abc.abstractmethod
    def take(self, n_batches: int) -> Rows:
        """The next batches on the host, arrays (n_batches, batch, ...)."""

    @abc.abstractmethod
    def skip(self, n_batches: int) -> None:
        """Pass over batches, as if they had been taken."""


class BatchStream:
    """Row numbers for minibatches of one fixed size, every row used equally often.

    Shuffles of all rows are laid end to end and cut into batches, so no remainder is dropped and
    no batch is smaller. A batch of all rows is not shuffled.

    Args:
        n_rows: rows of the data.
        batch_size: rows a batch; at most n_rows are used.
        seed: of the shuffles.
    """

    def __init__(self, n_rows: int, batch_size: int, seed: int):
        self.n_rows = n_rows
        self.batch_size = min(batch_size, n_rows)
        self._rng = np.random.default_rng(seed)
        self._left = np.empty(0, np.int32)

    def take(self, n_batches: int) -> Int[np.ndarray, "n_batches batch"]:
        """The next batches, as int32 row numbers."""
        if self.batch_size == self.n_rows:
            return np.tile(np.arange(self.n_rows, dtype=np.int32), (n_batches, 1))
        wanted = n_batches * self.batch_size
        parts, found = [self._left], self._left.size
        while found < wanted:
            parts.append(self._rng.permutation(self.n_rows).astype(np.int32))
            found += self.n_rows
        rows = np.concatenate(parts)
        self._left = rows[wanted:]
        return rows[:wanted].reshape(n_batches, self.batch_size)

    def skip(self, n_batches: int) -> None:
        """Pass over batches, as if they had been taken."""
        for start in range(0, n_batches, 25):
            self.take(min(25, n_batches - start))


class RowBatches(AbstractBatches):
    """Batches of rows in memory, in the order of a `BatchStream`."""

    def __init__(self, rows: Rows, batch_size: int, seed: int):
        self._rows, self._stream = rows, BatchStream(rows.n, batch_size, seed)

    def take(self, n_batches: int) -> Rows:
        """The next batches."""
        return self._rows.take(self._stream.take(n_batches))

    def skip(self, n_batches: int) -> None:
        """Pass over batches."""
        self._stream.skip(n_batches)


class NormalBatches(AbstractBatches):
    """Fresh draws of N(0, I) on R^dim, never the same row twice."""

    def __init__(self, dim: int, batch_size: int, seed: int, dtype: Any):
        self._shape, self._dtype = (batch_size, dim), dtype
        self._rng = np.random.default_rng(seed)

    def take(self, n_batches: int) -> Rows:
        """The next batches."""
        x = self._rng.standard_normal((n_batches, *self._shape)).astype(self._dtype)
        return Rows(x)  # type: ignore[arg-type]

    def skip(self, n_batches: int) -> None:
        """Pass over batches."""
        for _ in range(n_batches):
            self.take(1)
