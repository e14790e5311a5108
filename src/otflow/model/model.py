"""A flow in the data's own units: densities, maps and samples."""

import dataclasses
import platform
from collections.abc import Callable, Iterator
from importlib import metadata as packages
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

import otflow
from otflow.data.columns import check_inside
from otflow.data.conditions import check_condition, refuse_condition
from otflow.data.preprocessing import ColumnMap, Standardizer
from otflow.flow.flow import Flow
from otflow.parallel.batching import map_rows
from otflow.support.checks import check_rows
from otflow.support.frames import check_names
from otflow.support.memory import check_fits
from otflow.support.precision import dtype_of, precision

PIECE = 2**16  # draws from one key
_BATCH = 2**14  # rows a call


def package_versions() -> dict[str, str]:
    """Versions of Python, otflow and the packages that decide its numbers."""
    names = ("jax", "jaxlib", "equinox", "numpy")
    found = {name: packages.version(name) for name in names}
    return {"otflow": otflow.__version__, "python": platform.python_version()} | found


@dataclasses.dataclass(frozen=True)
class Model:
    """A flow with the maps to the data's units, and a summary of its training.

    Conditions are (n, k), a row a point, or (k,), one for all; None where there is none.

    Attributes:
        flow: in the space it was trained in.
        standardizer: to that space, after `column_map`.
        columns: names of the fitted frame's columns, None where it had none.
        settings, training: of the estimator, as model files keep them.
        condition: the affine map of a condition's columns.
        condition_columns: their names, where they had some.
        column_map: bounds, arcsinh and rounding steps; None where there are none.
        versions: of the packages that trained it; empty where nothing says so.
    """

    flow: Flow
    standardizer: Standardizer
    columns: tuple[str, ...] | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    condition: Standardizer | None = None
    condition_columns: tuple[str, ...] | None = None
    column_map: ColumnMap | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=package_versions)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns: x0, x1, ... where the data had none."""
        return self.columns or tuple(f"x{i}" for i in range(self.flow.dim))

    @property
    def chart(self) -> ColumnMap:
        """What columns are mapped by first, the identity where nothing is."""
        return self.column_map or ColumnMap.identity(self.flow.dim)

    @property
    def in_own_units(self) -> bool:
        """The flow's space has the data's scales: costs there are costs of the data."""
        return self.chart.is_identity and bool(np.all(self.standardizer.scale == 1))

    def to_flow(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Rows in the space of the flow.

        Raises:
            ValueError: values outside the bounds.
        """
        check_inside(self.chart, x, self.names)
        return self.standardizer.forward(self.chart.forward(x))

    def from_flow(self, z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Rows back in the data's units, not rounded."""
        return self.chart.inverse(self.standardizer.inverse(z))

    def dequantized(
        self, rows: Any, noise: np.random.Generator, name: str = "X"
    ) -> Float[np.ndarray, "n d"]:
        """Rows in the space of the flow, with noise over the cells of rounded columns.

        Args:
            rows: (n, d), an array, a list or a data frame, whose names are compared.
            noise: draws it.
            name: of the rows, for messages.

        Raises:
            ValueError, TypeError: no rows of finite numbers, other columns, or values outside the
                bounds.
        """
        check_names(name, rows, self.columns)
        x = check_rows(name, rows, self.flow.dim)
        check_inside(self.chart, x, self.names, name)
        return self.standardizer.forward(self.chart.forward(self.chart.dequantize(x, noise)))

    def log_prob(
        self, x: Float[np.ndarray, "n d"], condition: Any = None
    ) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """Log-density in nats and the data's units, float64, and where the flow gives none.

        It is -inf there: the map has no inverse, or the row lies too far out for the flow's
        precision. Likewise outside the bounds.
        """
        chart = self.chart

        def log_prob(x: np.ndarray, c: Any) -> tuple[np.ndarray, np.ndarray]:
            inside = np.asarray(chart.inside(x).all(axis=1))
            if not inside.any():
                return np.full(len(x), -np.inf), inside
            x = np.where(inside[:, None], x, x[inside.argmax()])
            with np.errstate(over="ignore", invalid="ignore"):  # rows too far out are -inf
                found = np.asarray(self.flow.log_prob(self.to_flow(x), c), np.float64)
            scores = found + self.standardizer.log_det + chart.log_det(x)
            return np.where(inside, scores, -np.inf), inside & np.isneginf(found)

        return self._map(log_prob, x, condition)

    def forward(
        self, x: Float[np.ndarray, "n d"], condition: Any = None
    ) -> Float[np.ndarray, "n d"]:
        """T(x), float64; not finite where a row lies too far out for the flow's precision.

        Raises:
            ValueError: values outside the bounds.
        """

        def forward(x: np.ndarray, c: Any) -> np.ndarray:
            with np.errstate(over="ignore", invalid="ignore"):
                return np.asarray(self.flow.forward(self.to_flow(x), c), np.float64)

        return self._map(forward, x, condition)

    def inverse(
        self, y: Float[np.ndarray, "n d"], condition: Any = None
    ) -> tuple[Float[np.ndarray, "n d"], Bool[np.ndarray, " n"]]:
        """Where points of the target come from, in the data's units, and where that is safe."""

        def pull(rows: Any, c: Any) -> tuple[np.ndarray, np.ndarray]:
            with np.errstate(over="ignore", invalid="ignore"):
                pulled = self.flow.pull(rows, c)
                x = self.from_flow(np.asarray(pulled.points))
            return x, np.asarray(pulled.valid) & np.isfinite(x).all(axis=1)

        return self._map(pull, y, condition)

    def sample(
        self, n: int, seed: int, condition: Any = None
    ) -> tuple[Float[np.ndarray, "n d"], Bool[np.ndarray, " n"]]:
        """n draws, rounded where the columns were, and where they are safe.

        Raises:
            MemoryError: they do not fit in memory; `sample_pieces` draws any number.
        """
        check_fits("n", n, self.flow.dim, "sample_pieces draws any number, piece by piece.")
        x, valid = np.empty((n, self.flow.dim)), np.empty(n, bool)
        start = 0
        for points, safe in self.sample_pieces(n, seed, condition):
            stop = start + len(points)
            x[start:stop], valid[start:stop] = points, safe
            start = stop
        return x, valid

    def sample_pieces(
        self, n: int, seed: int, condition: Any = None
    ) -> Iterator[tuple[Float[np.ndarray, "k d"], Bool[np.ndarray, " k"]]]:
        """What `sample` gives, `PIECE` rows at a time.

        The first piece is drawn with the seed's key, every later one with a key of its own: rows
        do not depend on how many follow, but for rounding (a last piece of fewer than 2^14 is
        computed by another program).
        """
        k, common = self.flow.condition_dim, np.ndim(condition) == 1
        if k:
            rows = check_condition(condition, 1 if common else n, k, self.condition_columns)
        else:
            refuse_condition(condition)
        for number, start in enumerate(range(0, n, PIECE)):
            stop = min(start + PIECE, n)
            own = condition if common or not k else rows[start:stop]
            with precision(dtype_of(self.flow)):
                target = self.flow.target
                if target.condition_dim:
                    target = target.given(jnp.asarray(self.scaled_condition(own, stop - start)))
                key = jax.random.key(seed)
                if number:  # far from what a target splits its key into
                    key = jax.random.fold_in(jax.random.fold_in(key, 2**32 - 1), number)
                y = np.asarray(target.sample(key, stop - start))
            x, valid = self.inverse(y, own)
            yield self.chart.round(x), valid

    def given(self, condition: Any) -> "Model":
        """The unconditional model under one condition (k,).

        Raises:
            ValueError: the model is unconditional, or another shape.
        """
        k = self.flow.condition_dim
        if not k:
            raise ValueError("condition: expected none, the model is unconditional; got one.")
        if np.ndim(condition) != 1:
            raise ValueError(f"condition: expected shape ({k},); got {np.shape(condition)}.")
        scaled = self.scaled_condition(condition, 1)
        assert scaled is not None
        flow = self.flow.given(scaled[0])
        return dataclasses.replace(self, flow=flow, condition=None, condition_columns=None)

    def _map(self, function: Callable[..., Any], x: np.ndarray, condition: Any) -> Any:
        """function(rows, their condition in the flow's space or None) over batches of the rows."""
        d, c = x.shape[1], self.scaled_condition(condition, len(x))
        if c is None:
            return map_rows(lambda rows: function(rows, None), x, _BATCH)
        return map_rows(lambda rows: function(rows[:, :d], rows[:, d:]), np.hstack([x, c]), _BATCH)

    def scaled_condition(
        self, condition: Any, n: int, name: str = "condition"
    ) -> Float[np.ndarray, "n k"] | None:
        """The condition of n points in the space that the flow knows; None where it takes none.

        Raises:
            ValueError, TypeError: none or another shape where it takes one, or the reverse.
        """
        k = self.flow.condition_dim
        if not k:
            refuse_condition(condition, name)
            return None
        found = check_condition(condition, n, k, self.condition_columns, name)
        return found if self.condition is None else self.condition.forward(found)
