"""What stands beside the rows in `OTFlow.fit`: conditions and sample weights, checked."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from otflow.data.columns import check_inside, check_on_grid
from otflow.data.conditions import check_condition, refuse_condition
from otflow.data.preprocessing import ColumnMap, Standardizer, constant_columns
from otflow.data.rows import Rows
from otflow.data.tabular import check_data, check_spread, check_varying
from otflow.support.frames import check_kinds

_FEW = 100  # rows, of which one is held out where the share is less
_LEAST_TRAINED = 3  # rows that stay where one is held out


@dataclasses.dataclass(frozen=True)
class DataRows:
    """Rows in the data's own units, float64, with weights and conditions where there are any."""

    x: Float[np.ndarray, "n d"]
    weight: Float[np.ndarray, " n"] | None = None
    condition: Float[np.ndarray, "n k"] | None = None

    def take(self, index: np.ndarray) -> "DataRows":
        """The rows of that index."""
        weight = None if self.weight is None else self.weight[index]
        condition = None if self.condition is None else self.condition[index]
        return DataRows(self.x[index], weight, condition)

    def split(self, fraction: float, seed: int) -> tuple["DataRows", "DataRows | None"]:
        """The rows without, and of, a random share; None where the share is no whole row."""
        n_val = int(fraction * len(self.x))
        if n_val == 0:
            return self, None
        order = np.random.default_rng(seed).permutation(len(self.x))
        return self.take(order[n_val:]), self.take(order[:n_val])

    def mapped(self, columns: ColumnMap, noise: np.random.Generator) -> "DataRows":
        """The rows with noise in rounded columns and bounded ones unbounded."""
        x = columns.forward(columns.dequantize(self.x, noise))
        return dataclasses.replace(self, x=x)

    def scaler(self, standardize: bool) -> Standardizer:
        """Mean 0 and deviation 1 for every column, by weight; the identity if not asked for."""
        if not standardize:
            return Standardizer.identity(self.x.shape[1])
        return Standardizer.fit(self.x, self.weight)

    def condition_scaler(self) -> Standardizer | None:
        """Mean 0 and deviation 1 for every column of the condition; those of 0 and 1 are left."""
        c = self.condition
        if c is None:
            return None
        found = Standardizer.fit(c, self.weight)
        onehot = np.isin(c, (0.0, 1.0)).all(axis=0)
        constant = constant_columns(c)
        mean = np.where(onehot, 0.0, found.mean)
        scale = np.where(np.isinf(found.scale), np.nan, found.scale)  # 1 / inf would hide it
        return Standardizer(mean, np.where(onehot | constant, 1.0, scale))

    def prepared(self, scaler: Standardizer, c_scaler: Standardizer | None, dtype: Any) -> Rows:
        """The rows in the space to train in; weights of mean 1."""
        weight, c = self.weight, self.condition
        with np.errstate(all="ignore"):  # what is not finite then is refused by `check_prepared`
            return Rows(
                jnp.asarray(scaler.forward(self.x), dtype),
                None if weight is None else jnp.asarray(weight / weight.mean(), dtype),
                None if c is None or c_scaler is None else jnp.asarray(c_scaler.forward(c), dtype),
            )


def read_rows(
    estimator: Any, X: Any, condition: Any, sample_weight: Any, fitting: bool = True
) -> DataRows:
    """What `fit` trains on; rows of weight 0 are left out. Not fitting: with the fitted columns.

    Raises:
        ValueError, TypeError: as `tabular.check_data`, `check_condition`, `check_weight`.
    """
    x = check_data(estimator, X, fitting=fitting)
    weight = check_weight(sample_weight, len(x))
    known = () if fitting else (estimator.n_conditions_, estimator.condition_names_)
    if known and not estimator.n_conditions_:
        refuse_condition(condition)
    elif known or condition is not None:
        condition = check_condition(condition, len(x), *known)
    rows = DataRows(x, weight, condition)
    return rows if weight is None else rows.take(weight > 0)


def check_validation(
    estimator: Any, rows: DataRows, X_val: Any, condition_val: Any, names: tuple[str, ...] | None
) -> DataRows | None:
    """The validation rows that `fit` was given, each with its condition where the rows have one.

    Raises:
        ValueError, TypeError: as `read_rows`; a condition missing or not asked for.
    """
    if X_val is None or rows.condition is None:
        refuse_condition(condition_val, "condition_val")
    if X_val is None:
        return None
    x = check_data(estimator, X_val, name="X_val")
    if rows.condition is None:
        return DataRows(x)
    k = rows.condition.shape[1]
    return DataRows(x, None, check_condition(condition_val, len(x), k, names, "condition_val"))


def divide(
    estimator: Any, rows: DataRows, val: DataRows | None, seed: int, *, varying: bool
) -> tuple[DataRows, DataRows | None]:
    """Rows to train on, and validation rows: those given, or a share held out.

    Where the share of few rows is no whole row, one is held out if three are left to train on, at
    the first fit with a warning: without any, they are learned by heart.

    Raises:
        ValueError: fewer than two rows are left, or columns are constant that should be varying.
    """
    if varying:  # at the first fit
        check_varying(rows.x, estimator)
    if val is not None:
        return rows, val
    n, fraction = len(rows.x), estimator.validation_fraction
    none_whole = 0 < fraction * n < 1 and n < _FEW
    share = fraction
    if none_whole:
        share = 1.5 / n if n > _LEAST_TRAINED else 0.0
    train, held = rows.split(share, seed)
    if len(train.x) < 2:
        raise ValueError(
            "validation_fraction: expected to leave two rows or more to train on; got "
            f"{fraction}, which leaves {len(train.x)} of {n}."
        )
    if none_whole and varying:
        told = "nothing stops training in time" if held is None else "one is held out"
        warnings.warn(
            f"validation_fraction: {fraction} of {n} rows is no whole row: {told}. Give X_val, or "
            "more rows.",
            UserWarning,
            stacklevel=4,
        )
    if varying:
        check_varying(train.x, estimator, "They vary over the rows held out only: give X_val")
    return train, held


def check_mapped(columns: ColumnMap, names: Sequence[str], **parts: DataRows | None) -> None:
    """Raise ValueError, naming argument and columns, for values off the grid or out of bounds."""
    for name, rows in parts.items():
        if rows is not None:
            check_on_grid(columns, rows.x, names, name)
            check_inside(columns, rows.x, names, name)


def check_prepared(
    z: Rows,
    z_val: Rows | None,
    names: Sequence[str],
    condition_names: Sequence[str] | None,
    varying: bool = True,
) -> None:
    """What is about to be trained on, by `check_spread`; columns of X may be constant if said so.

    Raises:
        ValueError: numbers that the flow's precision cannot hold; names argument and columns.
    """
    check_spread("X", np.asarray(z.x), names, constant=not varying)
    parts = [("condition", z.condition, condition_names)]
    if z_val is not None:
        parts += [("X_val", z_val.x, names), ("condition_val", z_val.condition, condition_names)]
    for name, rows, columns in parts:
        if rows is not None:
            columns = columns or [f"c{j}" for j in range(rows.shape[1])]
            check_spread(name, np.asarray(rows), columns, constant=True)


def check_weight(sample_weight: Any, n: int) -> Float[np.ndarray, " n"] | None:
    """Sample weights as float64, shape (n,); None for none.

    Raises:
        ValueError: another shape, no finite numbers >= 0, or fewer than two of them positive.
    """
    if sample_weight is None:
        return None
    check_kinds("sample_weight", sample_weight)
    try:
        weight = np.asarray(sample_weight, np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError("sample_weight: expected numbers >= 0.") from error
    if weight.shape != (n,):
        raise ValueError(f"sample_weight: expected shape ({n},); got {weight.shape}.")
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise ValueError("sample_weight: expected finite numbers >= 0; got others.")
    if not np.isfinite(weight.sum()):
        raise ValueError("sample_weight: expected a finite sum; got one that overflows.")
    if (positive := int((weight > 0).sum())) < 2:
        raise ValueError(f"sample_weight: expected two or more that are not zero; got {positive}.")
    return weight
