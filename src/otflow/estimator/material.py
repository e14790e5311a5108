"""What a flow is trained on: rows in memory, a stream of them, or a density."""

import dataclasses
from collections.abc import Callable

import jax

from otflow.data.batches import AbstractBatches, BatchStream
from otflow.data.preprocessing import Standardizer
from otflow.data.rows import Rows, on_host
from otflow.data.shards import ShardedTable
from otflow.data.streaming import Lanes, StreamBatches, Survey
from otflow.estimator.settings import Settings
from otflow.flow.wide import WideBatches
from otflow.support.precision import cast
from otflow.targets import AbstractTarget

_DENSITY_ROWS = 2**18  # points drawn for the start of `of_density`
_VALIDATION_ROWS = 2**14
_LEAST_BATCH = 2000  # of a natural-gradient step


@dataclasses.dataclass(frozen=True)
class Material:
    """What a flow is trained on.

    `x` are the rows of the first-order phase, `x_val` those that decide which weights are best
    (None: x, without early stopping); `draw` gives the batch of a natural-gradient step by its
    number; `density` is rho0 where it is known. Where x are batches, `points` have the mean and
    covariance of all rows; `stream` is a stream's digest, `streamed` how many rows it has.
    """

    x: Rows | AbstractBatches
    x_val: Rows | None
    draw: Callable[[int], Rows]
    density: AbstractTarget | None = None
    points: Rows | None = None
    stream: str | None = None
    streamed: int | None = None

    @property
    def n(self) -> int | None:
        """Rows that are trained on; None of a density, whose draws have no end."""
        return self.x.n if isinstance(self.x, Rows) else self.streamed


def of_rows(x: Rows, x_val: Rows | None, settings: Settings, seed: int) -> Material:
    """Rows in memory, in the space to train in."""
    stream = BatchStream(x.n, max(settings.batch_size, _LEAST_BATCH), seed)
    return Material(x, x_val, lambda k: x.take(stream.take(1)[0]))


def of_stream(table: ShardedTable, settings: Settings, seed: int) -> tuple[Material, Standardizer]:
    """Rows that stay in their files, and the scaler found in one pass through them."""
    lanes = Lanes(table, settings.validation_fraction, seed)
    survey = Survey.of(lanes)
    scaler = survey.scaler(settings.standardize)
    batches = StreamBatches(lanes, scaler, settings.batch_size, settings.dtype)
    held_out = scaler.forward(survey.held_out).astype(settings.dtype)
    x_val = on_host(held_out)  # type: ignore[arg-type]
    points = on_host(survey.points(scaler))  # type: ignore[arg-type]
    digest = survey.digest(lanes)
    return Material(
        batches,
        x_val,
        lambda k: x_val,
        points=points,
        stream=digest,
        streamed=int(lanes.lengths.sum()),
    ), scaler


def of_density(density: AbstractTarget, settings: Settings, seed: int) -> Material:
    """Draws of a density, fresh ones for every step, and some beyond them (`otflow.flow.wide`)."""
    density = cast(density, settings.dtype)
    keys = jax.random.split(jax.random.key(seed), 4)
    batches = WideBatches(density, settings.batch_size, keys[0])
    points = Rows(density.sample(keys[3], _DENSITY_ROWS))
    x_val = Rows(density.sample(keys[1], _VALIDATION_ROWS))
    natural = WideBatches(density, max(settings.batch_size, _LEAST_BATCH), keys[2])
    return Material(batches, x_val, lambda k: natural.take(1).take(0), density, points)
