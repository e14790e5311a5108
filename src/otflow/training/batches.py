"""The order in which rows are used: whole shuffles, one after another."""

import numpy as np
from jaxtyping import Int


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
