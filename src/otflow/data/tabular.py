"""Data matrices as scikit-learn takes them, with errors that name the column."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from otflow.data.preprocessing import constant_columns
from otflow.support.extras import require
from otflow.support.frames import check_kinds, text_columns

require("sklearn", "sklearn")
from sklearn.base import BaseEstimator  # noqa: E402
from sklearn.utils import validation  # noqa: E402
from sklearn.utils._set_output import ADAPTERS_MANAGER, _get_output_config  # noqa: E402


def check_data(
    estimator: BaseEstimator, X: Any, *, fitting: bool = False, name: str = "X"
) -> Float[np.ndarray, "n d"]:
    """X as a finite float64 array, its columns those the estimator was fitted on.

    Args:
        estimator: whose `n_features_in_` and `feature_names_in_` are set (fitting) or compared.
        X: rows of numbers: an array, a list of lists or a data frame.
        fitting: at least two rows, and remember the columns.
        name: of the argument, for messages.

    Raises:
        ValueError: not two-dimensional, text, dates, complex numbers, masked values, NaN or
            infinity (naming the columns), too few rows, or other columns than in fit.
    """
    check_kinds(name, X)
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
        text = text_columns(X)
        if text:
            raise ValueError(
                f"{name}: expected numbers; got text in column(s) {', '.join(text)}. "
                "Encode it as numbers, give categories to condition as one-hot columns, or leave "
                "these columns out."
            ) from error
        if name == "X":
            raise
        told = str(error).replace("X has", f"{name} has", 1)
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(told if told.startswith(name) else f"{name}: {told}") from error
    bad = ~np.isfinite(X)
    if bad.any():
        names = column_names(estimator, X.shape[1])
        found = [f"{names[j]} ({bad[:, j].sum()})" for j in np.flatnonzero(bad.any(axis=0))]
        raise ValueError(
            f"{name}: expected finite numbers; got NaN or infinity in column(s), with their "
            f"counts, {', '.join(found)}. Drop or fill these rows first."
        )
    return X


def check_varying(
    X: Float[np.ndarray, "n d"],
    estimator: BaseEstimator,
    remedy: str = "Drop them: they have no density",
) -> None:
    """Raise ValueError, naming them, if columns are constant: they have no density."""
    constant = np.flatnonzero(constant_columns(X))
    if constant.size:
        names = column_names(estimator, X.shape[1])
        raise ValueError(
            f"X: expected columns that vary over the training rows; got constant column(s) "
            f"{', '.join(names[i] for i in constant)}. {remedy}."
        )


def check_spread(
    name: str, z: Float[np.ndarray, "n d"], names: Sequence[str], *, constant: bool = False
) -> None:
    """Numbers in the flow's own precision: finite, with a variance that is a normal number.

    Raises:
        ValueError: columns whose numbers or variance over- or underflow, named; constant ones only
            where they are not allowed.
    """
    info = np.finfo(z.dtype)
    with np.errstate(all="ignore"):
        variance = z.var(axis=0, dtype=z.dtype)
    good = np.isfinite(z).all(axis=0) & (variance <= info.max)
    if not constant:
        good &= (variance >= info.tiny) & ~constant_columns(z)
    if not good.all():
        told = ", ".join(names[j] for j in np.flatnonzero(~good).tolist())
        raise ValueError(
            f"{name}: expected columns whose variance {z.dtype} can hold; got one that over- or "
            f"underflows in column(s) {told}. Shift them or change their units."
        )


def column_names(estimator: BaseEstimator, dim: int) -> tuple[str, ...]:
    """Names of the columns: those of the fitted data frame, else x0, x1, ..."""
    default = [f"x{i}" for i in range(dim)]
    return tuple(map(str, getattr(estimator, "feature_names_in_", default)))


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
