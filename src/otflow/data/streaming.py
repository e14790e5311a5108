"""Training rows from a `ShardedTable`: statistics in one pass, seeded batches, bounded memory."""

import dataclasses
import hashlib
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from otflow.data.batches import AbstractBatches
from otflow.data.preprocessing import LAST_BITS, Standardizer
from otflow.data.rows import Rows
from otflow.data.shards import ShardedTable
from otflow.parallel.job import check_same, summed

_MOST_HELD_OUT = 2**14  # rows, on average: they are kept in memory


class Lanes:
    """A table's lanes, the rows of it held out, and those lanes that are this process's.

    Args:
        table: the rows.
        held_out: share of the rows that no batch holds; at most 2^14 rows on average.
        seed: decides which.

    Raises:
        ValueError: lanes cannot be shared out over the processes of the job.
    """

    def __init__(self, table: ShardedTable, held_out: float, seed: int):
        self.table, self.seed, n = table, seed, table.n
        processes, me = jax.process_count(), jax.process_index()
        if table.lanes % processes:
            raise ValueError(
                f"lanes: expected a multiple of the {processes} processes; got {table.lanes} "
                f"({len(table.pieces)} pieces: lower piece_rows where that is too few)."
            )
        told = "X: expected the same table and settings in every process"
        check_same(told, f"{self.layout()}{held_out}")
        self._bar = np.uint64(min(held_out, _MOST_HELD_OUT / n) * 2.0**63) * np.uint64(2)
        self.sizes = table.pieces[:, 2] - table.pieces[:, 1]
        self._starts = np.cumsum(self.sizes) - self.sizes
        self.kept = np.array([(~self.mask(i)).sum() for i in range(len(self.sizes))])
        self.pieces = np.array_split(np.arange(len(self.sizes)), table.lanes)
        share = table.lanes // processes
        self.mine = range(me * share, (me + 1) * share)
        self.lengths = np.array([int(self.kept[pieces].sum()) for pieces in self.pieces])
        if self.lengths.min() == 0 or self.lengths.sum() == n:
            raise ValueError(
                "X: expected training rows in every lane and rows held out for validation; got "
                f"none of them among {n} with validation_fraction {held_out}."
            )

    def layout(self) -> str:
        """What decides the order of the rows."""
        table = self.table
        bounds = table.pieces.tolist()
        return f"{bounds}{table.names}{table.dim}{table.lanes}{table.buffer_rows}{self.seed}"

    def mask(self, piece: int) -> Bool[np.ndarray, " n"]:
        """Which rows of a piece are held out: a hash of their numbers decides."""
        number = np.arange(self.sizes[piece], dtype=np.uint64) + np.uint64(self._starts[piece])
        return _hash(number + _hash(np.full(1, self.seed, np.uint64))) < self._bar


def _check_moments(
    spread: Float[np.ndarray, " d"],
    variance: Float[np.ndarray, " d"],
    shift: Float[np.ndarray, " d"],
    names: Sequence[str],
) -> None:
    """Raise ValueError, naming columns that are constant or whose variance is no normal number.

    Args:
        spread: mean distance of the rows from `shift`, one of them.
        variance: around the mean.
        shift: of the order of the data.
        names: of the columns.
    """
    info = np.finfo(np.float64)
    constant = spread <= LAST_BITS * info.eps * np.abs(shift)
    if constant.any():
        told = ", ".join(names[j] for j in np.flatnonzero(constant).tolist())
        raise ValueError(
            f"paths: expected columns that vary; got constant column(s) {told}. "
            "Drop them: they have no density."
        )
    bad = ~((variance >= info.tiny) & (variance <= info.max))
    if bad.any():
        told = ", ".join(names[j] for j in np.flatnonzero(bad).tolist())
        raise ValueError(
            "paths: expected columns whose variance float64 can hold; got one that over- or "
            f"underflows in column(s) {told}. Shift them or change their units."
        )


def _hash(x: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """SplitMix64 (Steele, Lea and Flood 2014): 64 well-mixed bits of each number."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclasses.dataclass(frozen=True)
class Survey:
    """What one pass over a table found: moments of the training rows, and the rows held out."""

    mean: Float[np.ndarray, " d"]
    cov: Float[np.ndarray, "d d"]
    held_out: Float[np.ndarray, "k d"]

    @staticmethod
    def of(lanes: Lanes) -> "Survey":
        """Read every row once; each process its lanes.

        Raises:
            ValueError: numbers that are not finite, a column that is constant.
        """
        table, dim = lanes.table, lanes.table.dim
        shift = table.read(0)[0]  # of the order of the data, so that sums of squares keep digits
        sums = np.zeros((table.lanes, dim, dim + 2))
        held_counts = lanes.sizes - lanes.kept
        ends = np.cumsum(held_counts)
        held = np.zeros((ends[-1], dim))
        for lane in lanes.mine:
            for piece in lanes.pieces[lane]:
                rows, out = table.read(piece), lanes.mask(piece)
                held[ends[piece] - held_counts[piece] : ends[piece]] = rows[out]
                with np.errstate(over="ignore", invalid="ignore"):
                    centred = rows[~out] - shift
                    found = [centred.T @ centred, centred.sum(axis=0), np.abs(centred).sum(axis=0)]
                sums[lane] += np.column_stack(found)
        total, n = summed(sums).sum(axis=0), lanes.kept.sum()
        with np.errstate(over="ignore", invalid="ignore"):
            mean = total[:, -2] / n
            cov = total[:, :-2] / n - np.outer(mean, mean)
        names = table.names or [f"x{j}" for j in range(dim)]
        _check_moments(total[:, -1] / n, np.diagonal(cov), shift, names)
        return Survey(mean + shift, cov, summed(held))

    def scaler(self, standardize: bool) -> Standardizer:
        """To mean 0 and standard deviation 1, or the identity."""
        if not standardize:
            return Standardizer.identity(len(self.mean))
        return Standardizer(self.mean, np.sqrt(np.diagonal(self.cov)))

    def points(self, scaler: Standardizer) -> Float[np.ndarray, "2d d"]:
        """2 d points with the mean and the covariance of the scaled training rows."""
        variance, basis = np.linalg.eigh(self.cov / np.outer(scaler.scale, scaler.scale))
        arms = (basis * np.sqrt(np.maximum(variance, 0) * len(variance))).T
        return np.concatenate([arms, -arms]) + (self.mean - scaler.mean) / scaler.scale

    def digest(self, lanes: Lanes) -> str:
        """A name for the data and the order in which it is used."""
        found = hashlib.sha256(lanes.layout().encode())
        for array in (self.mean, self.cov, self.held_out):
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()


class StreamBatches(AbstractBatches):
    """This process's part of every batch, from its lanes.

    A row's weight makes up for lanes of unequal length, so a batch's weighted mean estimates that
    of all rows without bias. Any batch is found without reading those before it.

    Args:
        lanes: of the table.
        scaler: applied to the rows.
        batch_size: rows a batch over all processes, rounded up to a multiple of the lanes.
        dtype: of the rows.
    """

    part = True

    def __init__(self, lanes: Lanes, scaler: Standardizer, batch_size: int, dtype: object):
        self._lanes, self._scaler, self._dtype = lanes, scaler, np.dtype(dtype)  # type: ignore[call-overload]
        self._each = -(-batch_size // lanes.table.lanes)
        self._taken = 0
        self._window: dict[int, tuple[tuple[int, int], np.ndarray]] = {}
        table = lanes.table
        self._pieces = max(1, table.buffer_rows // (table.lanes * table.piece_rows))

    def take(self, n_batches: int) -> Rows:
        """The next batches."""
        start, count = self._taken * self._each, n_batches * self._each
        self._taken += n_batches
        length = self._lanes.lengths
        parts, weights = [], []
        for lane in self._lanes.mine:
            rows = self._rows(lane, start, count)
            parts.append(rows.reshape(n_batches, self._each, -1))
            weight = self._dtype.type(length[lane] / length.mean())
            weights.append(np.full((n_batches, self._each), weight))
        whole = [np.concatenate(parts, axis=1), np.concatenate(weights, axis=1)]
        like = jax.tree.structure(Rows(np.zeros((1, 1)), np.zeros(1)))  # type: ignore[arg-type]
        return jax.tree.unflatten(like, whole)  # with an axis of steps before that of the rows

    def skip(self, n_batches: int) -> None:
        """Pass over batches."""
        self._taken += n_batches

    def _rows(self, lane: int, start: int, count: int) -> Float[np.ndarray, "n d"]:
        """Rows of a lane's endless order."""
        found, length = [], int(self._lanes.lengths[lane])
        while count:
            epoch, offset = divmod(start, length)
            window, within = self._find(lane, epoch, offset)
            part = window[within : within + count]
            found.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(found)

    def _find(self, lane: int, epoch: int, offset: int) -> tuple[np.ndarray, int]:
        """The shuffled window that holds a row of an epoch, and where in it."""
        rng = np.random.default_rng([self._lanes.seed, lane, epoch])
        order = rng.permutation(self._lanes.pieces[lane])
        ends = np.cumsum(self._lanes.kept[order])
        first = int(np.searchsorted(ends, offset, side="right"))
        number = first // self._pieces
        first = number * self._pieces
        before = int(ends[first - 1]) if first else 0
        key = (epoch, number)
        held = self._window.get(lane)
        if held is None or held[0] != key:
            self._window.pop(lane, None)  # one at a time in memory
            rows = [self._read(piece) for piece in order[first : first + self._pieces]]
            shuffle = np.random.default_rng([self._lanes.seed, lane, epoch, number + 1])
            held = (key, shuffle.permutation(np.concatenate(rows)))
            self._window[lane] = held
        return held[1], offset - before

    def _read(self, piece: int) -> Float[np.ndarray, "n d"]:
        rows = self._lanes.table.read(piece)[~self._lanes.mask(piece)]
        return self._scaler.forward(rows).astype(self._dtype)
