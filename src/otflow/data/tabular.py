"""Data matrices as scikit-learn takes them, with errors that name the column."""

from typing import Any

import numpy as np
from jaxtyping import Float

from otflow.support.extras import require

require("sklearn", "sklearn")
from sklearn.base import BaseEstimator  # noqa: E402
from sklearn.utils import validation  # noqa: E402
from sklearn.utils._set_output import ADAPTERS_MANAGER, _get_output_config  # noqa: E402


def check_data(
    estimator: BaseEstimator, X: Any, *, fitting: bool = False
) -> Float[np.ndarray, "n d"]:
    """X as a finite float64 array, its columns those the estimator was fitted on.

    Args:
        estimator: whose `n_features_in_` and `feature_names_in_` are set (fitting) or compared.
        X: rows of numbers: an array, a list of lists or a data frame.
        fitting: at least two rows, and remember the columns.

    Raises:
        ValueError: not two-dimensional, text, NaN or infinity (naming the columns), too few rows,
            or other columns than in fit.
    """
    try:
        X = validation.validate_data(
            estimator,
            X,
            reset=fitting,
            dtype=np.float64,
            ensure_all_finite=False,
            ensure_min_samples=2 if fitting else 1,
        )
    except (ValueError, TypeError) as error:
        text = _text_columns(X)
        if not text:
            raise
        raise ValueError(
            f"X: expected numbers; got text in column(s) {', '.join(text)}."
        ) from error
    bad = ~np.isfinite(X)
    if bad.any():
        names = column_names(estimator, X.shape[1])
        found = [f"{names[j]} ({bad[:, j].sum()})" for j in np.flatnonzero(bad.any(axis=0))]
        raise ValueError(
            f"X: expected finite numbers; got NaN or infinity in column(s), with their counts, "
            f"{', '.join(found)}. Drop or fill these rows first."
        )
    return X


def check_varying(X: Float[np.ndarray, "n d"], estimator: BaseEstimator) -> None:
    """Raise ValueError, naming them, if columns are constant: they have no density."""
    constant = np.flatnonzero(X.max(axis=0) == X.min(axis=0))
    if constant.size:
        names = column_names(estimator, X.shape[1])
        raise ValueError(
            f"X: expected columns that vary over the training rows; got constant column(s) "
            f"{', '.join(names[i] for i in constant)}. Drop them: they have no density."
        )


def column_names(estimator: BaseEstimator, dim: int) -> tuple[str, ...]:
    """Names of the columns: those of the fitted data frame, else x0, x1, ..."""
    default = [f"x{i}" for i in range(dim)]
    return tuple(map(str, getattr(estimator, "feature_names_in_", default)))


def _text_columns(X: Any) -> list[str]:
    """Names or numbers of the columns that hold something that is no number."""
    try:
        names = [str(name) for name in getattr(X, "columns", [])]
        rows = np.asarray(X, dtype=object)
    except (ValueError, TypeError):
        return []
    if rows.ndim != 2:
        return []
    names = names or [f"x{j}" for j in range(rows.shape[1])]
    return [names[j] for j in range(rows.shape[1]) if _is_text(rows[:, j])]


def _is_text(column: np.ndarray) -> bool:
    """Some entry is a string that is no number."""
    for value in column:
        if isinstance(value, (str, bytes)):
            try:
                float(value)
            except ValueError:
                return True
    return False


def in_container(
    estimator: BaseEstimator, values: Float[np.ndarray, "n d"], original: Any = None
) -> Any:
    """Rows in the data's own columns, in the container that `set_output` asked for.

    scikit-learn wraps what `transform` returns by itself, and only that.
    """
    kind = _get_output_config("transform", estimator)["dense"]
    if kind == "default":
        return values
    adapter = ADAPTERS_MANAGER.adapters[kind]
    original = values if original is None else original
    return adapter.create_container(values, original, columns=estimator.columns_)
