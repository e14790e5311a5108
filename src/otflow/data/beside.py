"""What stands beside the rows in `OTFlow.fit`: conditions and sample weights, checked."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from otflow.data.conditions import check_condition, refuse_condition
from otflow.data.preprocessing import ColumnMap, Standardizer
from otflow.data.rows import Rows
from otflow.data.tabular import check_data


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
        constant = c.max(axis=0) == c.min(axis=0)
        mean = np.where(onehot, 0.0, found.mean)
        return Standardizer(mean, np.where(onehot | constant, 1.0, found.scale))

    def prepared(self, scaler: Standardizer, c_scaler: Standardizer | None, dtype: Any) -> Rows:
        """The rows in the space to train in; weights of mean 1."""
        weight, c = self.weight, self.condition
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
    x = check_data(estimator, X_val)
    if rows.condition is None:
        return DataRows(x)
    k = rows.condition.shape[1]
    return DataRows(x, None, check_condition(condition_val, len(x), k, names, "condition_val"))


def check_weight(sample_weight: Any, n: int) -> Float[np.ndarray, " n"] | None:
    """Sample weights as float64, shape (n,); None for none.

    Raises:
        ValueError: another shape, no finite numbers >= 0, or fewer than two of them positive.
    """
    if sample_weight is None:
        return None
    try:
        weight = np.asarray(sample_weight, np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError("sample_weight: expected numbers >= 0.") from error
    if weight.shape != (n,):
        raise ValueError(f"sample_weight: expected shape ({n},); got {weight.shape}.")
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise ValueError("sample_weight: expected finite numbers >= 0; got others.")
    if (positive := int((weight > 0).sum())) < 2:
        raise ValueError(f"sample_weight: expected two or more that are not zero; got {positive}.")
    return weight
