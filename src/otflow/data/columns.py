"""From an estimator's `bounds`, `dequantize` and `arcsinh` to a `ColumnMap`."""

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from otflow.data.preprocessing import ColumnMap
from otflow.support.checks import check_number, check_real

BY_COLUMN = ("bounds", "dequantize", "arcsinh")
_DIGITS = 9  # of the largest value, in which a decimal rounding step is looked for
_ROWS_PER_LEVEL = 2  # with fewer rows for each distinct value, decimals are not seen as rounded
_OFF_GRID = 0.1  # of a step; below that, what float32 leaves of a decimal
_FAR = 50.0  # interquartile ranges from the median to the farthest row: a heavy tail


def make_column_map(
    bounds: Any,
    dequantize: Any,
    X: Float[np.ndarray, "n d"],
    names: Sequence[str],
    arcsinh: Any = None,
) -> ColumnMap:
    """The column transforms that `OTFlow` was asked for; X itself is not checked against them.

    Args:
        bounds: None, or column -> (lower, upper), each a number or None; columns by name or
            number. In a rounded column they are its least and greatest possible value.
        dequantize: None, "auto" (`rounding_step` of every column), a step for all columns, or
            column -> step.
        X: the rows in which "auto" looks for steps and tails; centres and scales are theirs.
        names: of the columns.
        arcsinh: None, "auto" (columns of `heavy_tailed` rows without bounds), or column -> scale,
            None for half its interquartile range. The centre is the column's median.

    Raises:
        ValueError, TypeError: an unknown column, improper bounds, step or scale, both bounds and a
            scale, or no scale in the rows.
    """
    step = _steps(dequantize, X, names)
    lower, upper = np.full(len(names), -np.inf), np.full(len(names), np.inf)
    for j, (low, high) in _by_column("bounds", bounds, names, _interval).items():
        lower[j], upper[j] = low, high
    for j in np.flatnonzero(step).tolist():  # half a step outside the extreme values on the grid
        lower[j] = step[j] * (np.ceil(lower[j] / step[j] - 1e-9) - 0.5)
        upper[j] = step[j] * (np.floor(upper[j] / step[j] + 1e-9) + 0.5)
    columns = ColumnMap(_or_none(lower), _or_none(upper), tuple(step.tolist()))
    found = _tails(arcsinh, X, names, columns)
    tails = tuple(found.get(j) for j in range(len(names))) if found else ()
    return dataclasses.replace(columns, arcsinh=tails)


def rounding_step(x: Float[np.ndarray, " n"]) -> float:
    """The largest step a 10^-k that every value is a multiple of; 0 for a continuous column.

    Integers always count as rounded. Decimals do where there are at least two rows for each
    distinct value, so that a density would put spikes there.
    """
    size = np.abs(x)
    largest = float(size.max())
    if largest == 0:
        return 0.0
    if largest < 2.0**53 and (size == np.rint(size)).all():
        return float(np.gcd.reduce(size.astype(np.int64)))
    if len(np.unique(x)) * _ROWS_PER_LEVEL > len(x):
        return 0.0
    first = -math.floor(math.log10(largest))
    for k in range(max(first, 1), first + _DIGITS):
        scaled = size * 10.0**k
        if _on_grid(scaled).all():
            return float(np.gcd.reduce(np.rint(scaled).astype(np.int64)) / 10.0**k)
    return 0.0


def heavy_tailed(x: Float[np.ndarray, " n"]) -> bool:
    """Whether rows lie very far out, measured by the middle half of them."""
    return bool(far_out(x).any())


def far_out(x: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Which rows do."""
    low, middle, high = np.quantile(x, (0.25, 0.5, 0.75))
    return (np.abs(x - middle) > _FAR * (high - low)) & (high > low)


def check_inside(
    columns: ColumnMap, X: Float[np.ndarray, "n d"], names: Sequence[str], name: str = "X"
) -> None:
    """Raise ValueError, naming the columns, where rows do not lie strictly between the bounds."""
    _refuse(name, ~columns.inside(X), "values strictly between the bounds; got others", names)


def check_on_grid(
    columns: ColumnMap, X: Float[np.ndarray, "n d"], names: Sequence[str], name: str = "X"
) -> None:
    """Raise ValueError, naming the columns, where rounded ones are not multiples of their step."""
    step = np.array(columns.step)
    rounded = step > 0
    off = np.zeros(X.shape, bool)
    off[:, rounded] = ~_on_grid(np.abs(X[:, rounded]) / step[rounded])
    _refuse(name, off, "multiples of the rounding step; got others", names)


def named(spec: Any, names: Sequence[str]) -> Any:
    """A setting by column as JSON keeps it: columns by name, no infinities."""
    if not isinstance(spec, Mapping):
        return spec
    found = {}
    for key, value in spec.items():
        if not (value is None or isinstance(value, numbers.Real)):
            value = [v if v is not None and math.isfinite(v) else None for v in value]
        found[key if isinstance(key, str) else names[key]] = value
    return found


def as_set(spec: Any) -> Any:
    """A setting by column for JSON, exactly as it was set; `from_set` reads it.

    Columns are keys as given, a pair (lower, upper) stays a tuple or a list, infinity a number.
    """
    if not isinstance(spec, Mapping):
        return spec
    return {"columns": [[_plain(key), _plain(value)] for key, value in spec.items()]}


def from_set(found: Any) -> Any:
    """What `as_set` was given.

    Raises:
        TypeError, ValueError, KeyError: not what it writes.
    """
    if not isinstance(found, dict):
        return found
    return {key: _restored(value) for key, value in found["columns"]}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isinf(value):
        return str(value)
    if isinstance(value, tuple):
        return {"tuple": [_plain(v) for v in value]}
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return [_plain(v) for v in value]
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(_restored(v) for v in value["tuple"])
    if isinstance(value, list):
        return [_restored(v) for v in value]
    return float(value) if isinstance(value, str) else value


def _or_none(values: Float[np.ndarray, " d"]) -> tuple[float | None, ...]:
    return tuple(v if math.isfinite(v) else None for v in values.tolist())


def _on_grid(levels: np.ndarray) -> Bool[np.ndarray, "..."]:
    """Whether they are integers, as far as float32 can tell."""
    return np.abs(levels - np.rint(levels)) <= np.minimum(_OFF_GRID, 1e-6 + 2.0**-22 * levels)


def _refuse(name: str, bad: Bool[np.ndarray, "n d"], what: str, names: Sequence[str]) -> None:
    if bad.any():
        columns = np.flatnonzero(bad.any(axis=0)).tolist()
        found = [f"{names[j]} ({bad[:, j].sum()})" for j in columns]
        told = f"{what} in column(s), with their counts, {', '.join(found)}"
        raise ValueError(f"{name}: expected {told}.")


def _steps(
    dequantize: Any, X: Float[np.ndarray, "n d"], names: Sequence[str]
) -> Float[np.ndarray, " d"]:
    if isinstance(dequantize, str):
        if dequantize != "auto":
            raise ValueError(
                f"dequantize: expected None, 'auto', a step or steps by column; got {dequantize!r}."
            )
        return np.array([rounding_step(column) for column in X.T])
    if dequantize is None or isinstance(dequantize, Mapping):
        step = np.zeros(len(names))
        for j, value in _by_column("dequantize", dequantize, names, _step).items():
            step[j] = value
        return step
    return np.full(len(names), _step("dequantize", dequantize))


def _tails(
    arcsinh: Any, X: Float[np.ndarray, "n d"], names: Sequence[str], columns: ColumnMap
) -> dict[int, tuple[float, float]]:
    """Column number -> its centre and scale."""
    if isinstance(arcsinh, str):
        if arcsinh != "auto":
            raise ValueError(
                f"arcsinh: expected None, 'auto' or scales by column; got {arcsinh!r}."
            )
        asked = {j: None for j, free in enumerate(columns.unbounded) if free}
        asked = {j: None for j in asked if heavy_tailed(X[:, j])}
    else:
        asked = _by_column("arcsinh", arcsinh, names, _scale)
    found = {}
    for j, scale in asked.items():
        if not columns.unbounded[j]:
            raise ValueError(f"arcsinh: expected columns without bounds; got {names[j]}.")
        low, middle, high = np.quantile(X[:, j], (0.25, 0.5, 0.75)).tolist()
        scale = max(0.5 * (high - low), columns.step[j]) if scale is None else scale
        if scale == 0:
            raise ValueError(
                f"arcsinh: expected a scale for {names[j]}, half of whose rows have one value; "
                "got None."
            )
        found[j] = (middle, scale)
    return found


def _by_column(
    argument: str, spec: Any, names: Sequence[str], parse: Callable[[str, Any], Any]
) -> dict[int, Any]:
    """Column number -> parsed value."""
    if spec is None:
        return {}
    if not isinstance(spec, Mapping):
        raise TypeError(f"{argument}: expected a dictionary by column; got {type(spec).__name__}.")
    found = {}
    for key, value in spec.items():
        if isinstance(key, (int, np.integer)) and 0 <= key < len(names):
            j = int(key)
        elif key in names:
            j = list(names).index(key)
        else:
            raise ValueError(f"{argument}: expected columns among {', '.join(names)}; got {key!r}.")
        if j in found:
            raise ValueError(f"{argument}: expected every column once; got {names[j]} twice.")
        found[j] = parse(f"{argument}[{key!r}]", value)
    return found


def _step(argument: str, value: Any) -> float:
    check_number(argument, value, positive=True)
    return float(value)


def _scale(argument: str, value: Any) -> float | None:
    return None if value is None else _step(argument, value)


def _interval(argument: str, value: Any) -> tuple[float, float]:
    try:
        if isinstance(value, str | Mapping | Set):
            raise TypeError
        low, high = value
        low = -math.inf if low is None else check_real(argument, low)
        high = math.inf if high is None else check_real(argument, high)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{argument}: expected a pair (lower, upper) of numbers or None; got {value!r}."
        ) from error
    if not low < high:
        raise ValueError(f"{argument}: expected lower < upper; got {value!r}.")
    if math.isfinite(low) and math.isfinite(high) and math.isinf(high - low):
        raise ValueError(f"{argument}: expected upper - lower to be finite; got {value!r}.")
    return low, high
