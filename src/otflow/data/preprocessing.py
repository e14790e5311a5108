"""The maps between the data's own units and the space a flow is trained in."""

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

LAST_BITS = 16  # units in the last place within which a column is constant


def constant_columns(x: Float[np.ndarray, "n d"]) -> Bool[np.ndarray, " d"]:
    """Which columns are constant, but for the last bits of their numbers."""
    low, high = x.min(axis=0), x.max(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.maximum(np.abs(low), np.abs(high))
        return np.asarray(high - low <= LAST_BITS * np.finfo(x.dtype).eps * size)


class Standardizer(eqx.Module):
    """z = (x - mean) / scale, column by column, in float64."""

    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]

    @staticmethod
    def fit(
        x: Float[np.ndarray, "n d"], weight: Float[np.ndarray, " n"] | None = None
    ) -> "Standardizer":
        """Mean and standard deviation of every column, by weight; no number where they overflow."""
        with np.errstate(over="ignore", invalid="ignore"):
            if weight is None:
                return Standardizer(x.mean(axis=0), x.std(axis=0))
            mean = np.average(x, axis=0, weights=weight)
            return Standardizer(mean, np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight)))

    @staticmethod
    def identity(dim: int) -> "Standardizer":
        """z = x."""
        return Standardizer(np.zeros(dim), np.ones(dim))

    @property
    def log_det(self) -> float:
        """log|det dz/dx|, nats: add it to a log-density in z to get one in x."""
        return float(-np.log(self.scale).sum())

    def forward(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """From the data's units to the flow's space."""
        return (np.asarray(x, np.float64) - self.mean) / self.scale

    def inverse(self, z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """From the flow's space to the data's units."""
        return np.asarray(z, np.float64) * self.scale + self.mean


class ColumnMap(eqx.Module):
    """Bounded columns on the whole line, long tails shortened, rounded columns made continuous.

    Between finite bounds y = log(x - lower) - log(upper - x); with one of them the other term is
    missing; without any y = x. A column with a rounding step s > 0 holds multiples of s; its
    continuous variable is x + s (u - 1/2), u uniform on [0, 1), so a value stands in the middle of
    its cell, and the bounds lie half a step outside its least and its greatest value. A column
    with a centre m and a scale s is y = arcsinh((x - m) / s): x - m in units of s near m, its
    logarithm far out. All in float64.

    Args:
        lower, upper: open bounds of each column's continuous variable; None where there is none.
        step: rounding step of each column; 0 where it is continuous.
        arcsinh: (m, s) of each column, None where it has none; () where no column has.

    Raises:
        ValueError: lower >= upper, a negative step, s <= 0, bounds beside (m, s), or anything that
            is no finite number.
    """

    lower: tuple[float | None, ...]
    upper: tuple[float | None, ...]
    step: tuple[float, ...]
    arcsinh: tuple[tuple[float, float] | None, ...] = ()

    def __check_init__(self) -> None:
        if not len(self.lower) == len(self.upper) == len(self.step):
            raise ValueError("step: expected as many as lower and upper.")
        given = [v for v in (*self.lower, *self.upper) if v is not None]
        if not all(type(v) is float and np.isfinite(v) for v in (*given, *self.step)):
            raise ValueError(f"lower, upper, step: expected finite numbers; got {self}.")
        if not (self._low < self._high).all() or min(self.step, default=0.0) < 0:
            raise ValueError(f"expected lower < upper and steps >= 0; got {self}.")
        if self.arcsinh != ():
            self._check_arcsinh()

    def _check_arcsinh(self) -> None:
        if len(self.arcsinh) != len(self.step):
            raise ValueError("arcsinh: expected as many as lower and upper, or none.")
        for at, low, high in zip(self.arcsinh, self.lower, self.upper, strict=True):
            if at is None:
                continue
            if not (len(at) == 2 and all(type(v) is float and np.isfinite(v) for v in at)):
                raise ValueError(f"arcsinh: expected finite numbers (centre, scale); got {at}.")
            if at[1] <= 0 or low is not None or high is not None:
                raise ValueError(f"arcsinh: expected scales > 0 and no bounds; got {self}.")

    @staticmethod
    def identity(dim: int) -> "ColumnMap":
        """y = x, nothing rounded."""
        return ColumnMap((None,) * dim, (None,) * dim, (0.0,) * dim)

    @property
    def is_identity(self) -> bool:
        """Nothing bounded, shortened or rounded."""
        return {*self.lower, *self.upper, *self.arcsinh} <= {None} and not any(self.step)

    @property
    def tails(self) -> tuple[tuple[float, float] | None, ...]:
        """`arcsinh` with an entry for every column, always."""
        return self.arcsinh or (None,) * len(self.step)

    @property
    def unbounded(self) -> tuple[bool, ...]:
        """Which columns are y = x, but for rounding."""
        each = zip(self.lower, self.upper, self.tails, strict=True)
        return tuple(found == (None, None, None) for found in each)

    def inside(self, x: Float[np.ndarray, "n d"]) -> Bool[np.ndarray, "n d"]:
        """Whether every entry lies strictly between the bounds of its column."""
        return (x > self._low) & (x < self._high)

    def forward(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """From the data's units to the line; x strictly between the bounds."""
        y = np.array(x, np.float64)
        below, above = np.isfinite(self._low), np.isfinite(self._high)
        y[:, below | above] = 0.0
        y[:, below] += np.log((x - self._low)[:, below])
        y[:, above] -= np.log((self._high - x)[:, above])
        for j, m, s in self._tails:
            y[:, j] = np.arcsinh((y[:, j] - m) / s)
        return y

    def inverse(self, y: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """From the line to the data's units, always strictly between the bounds."""
        x = np.array(y, np.float64)
        low, high = self._low, self._high
        below, above = np.isfinite(low), np.isfinite(high)
        both, below, above = below & above, below & ~above, above & ~below
        with np.errstate(over="ignore"):
            x[:, below] = low[below] + np.exp(x[:, below])
            x[:, above] = high[above] - np.exp(-x[:, above])
            for j, m, s in self._tails:
                x[:, j] = m + s * np.sinh(x[:, j])
        x[:, both] = low[both] + (high - low)[both] * expit(x[:, both])
        return self._clip(x)

    def log_det(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """log|det dy/dx|, nats: add it to a log-density in y to get one in x."""
        below, above = np.isfinite(self._low), np.isfinite(self._high)
        found = -np.log((x - self._low)[:, below]).sum(axis=1)
        found -= np.log((self._high - x)[:, above]).sum(axis=1)
        for j, m, s in self._tails:
            found -= np.log(np.hypot(s, x[:, j] - m))
        return found + np.log((self._high - self._low)[below & above]).sum()

    def dequantize(
        self, x: Float[np.ndarray, "n d"], rng: np.random.Generator
    ) -> Float[np.ndarray, "n d"]:
        """Rounded columns with uniform noise over their cells; the others as they are."""
        step = np.array(self.step)
        rounded = step > 0
        if not rounded.any():
            return x
        x = np.array(x, np.float64)
        x[:, rounded] += step[rounded] * (rng.random((len(x), int(rounded.sum()))) - 0.5)
        return self._clip(x)

    def round(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Rounded columns on their grid, between their bounds; the others as they are."""
        x = np.array(x, np.float64)
        for j, step in enumerate(self.step):
            if step > 0:
                least, most = np.ceil(self._low[j] / step), np.floor(self._high[j] / step)
                x[:, j] = _multiples(np.clip(np.rint(x[:, j] / step), least, most), step)
        return x

    @property
    def log_cell(self) -> float:
        """log of the volume of a cell: the sum of log step over the rounded columns."""
        return float(sum(np.log(step) for step in self.step if step > 0))

    @property
    def _tails(self) -> list[tuple[int, float, float]]:
        """Number, m and s of every column that has them."""
        return [(j, *at) for j, at in enumerate(self.arcsinh) if at is not None]

    @property
    def _low(self) -> Float[np.ndarray, " d"]:
        return np.array([-np.inf if v is None else v for v in self.lower])

    @property
    def _high(self) -> Float[np.ndarray, " d"]:
        return np.array([np.inf if v is None else v for v in self.upper])

    def _clip(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Rounding errors may end on a bound; this stays inside."""
        return np.clip(x, np.nextafter(self._low, np.inf), np.nextafter(self._high, -np.inf))


def _multiples(level: Float[np.ndarray, " n"], step: float) -> Float[np.ndarray, " n"]:
    """level * step, as decimals are written: 3 steps of 0.1 are 0.3."""
    per_unit = np.rint(1 / step)
    whole = per_unit > 0 and abs(per_unit * step - 1) < 1e-12
    return (level / per_unit if whole else level * step) + 0.0  # no -0.0
