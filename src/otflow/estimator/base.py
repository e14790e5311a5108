"""The part of OTFlow that scikit-learn asks for: rows, names, pickles, continuation."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from otflow.data.preprocessing import ColumnMap, Standardizer
from otflow.flow.flow import Flow
from otflow.flow.normalisation import Integral
from otflow.flow.objective import costs_at
from otflow.support.extras import require
from otflow.support.html import number, table
from otflow.support.precision import cast

require("sklearn", "sklearn")
from sklearn import base  # noqa: E402
from sklearn.utils import validation  # noqa: E402

from otflow.data.tabular import check_data, column_names  # noqa: E402

SHAPING = (
    "width",
    "depth",
    "potential",
    "scheme",
    "n_steps",
    "base",
    "dtype",
    "standardize",
    "bounds",
    "dequantize",
)  # settings that the fitted weights depend on: a continuation keeps them, and the target


class TabularEstimator(
    base.ClassNamePrefixFeaturesOutMixin,
    base.TransformerMixin,
    base.DensityMixin,
    base.BaseEstimator,
):
    """The part of `OTFlow` that does not compute with the flow."""

    flow_: Flow
    standardizer_: Standardizer
    column_map_: ColumnMap
    dtype: Any
    target: Any
    _shaped_by: dict[str, Any]
    history_: dict[str, list[float]]
    n_iter_: int
    status_: str
    decided_: dict[str, Any]
    integral_: Integral | None

    def used(self, name: str) -> Any:
        """The value of a setting in the last fit, where None what the data decided."""
        value = getattr(self, name)
        return self.decided_.get(name) if value is None else value

    @property
    def columns_(self) -> tuple[str, ...]:
        """Names of the columns: those of the fitted data frame, else x0, x1, ..."""
        return column_names(self, self.n_features_in_)

    @property
    def _n_features_out(self) -> int:
        return self.n_features_in_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "flow_")

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "flow_" in state:  # JAX would restore float64 arrays as float32
            state["flow_"] = jax.tree.map(np.asarray, state["flow_"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "flow_" in state:
            self.flow_ = cast(self.flow_, self.dtype)

    def _repr_html_inner(self) -> str:
        """scikit-learn's diagram and, of a fitted model, a table of what came out."""
        return super()._repr_html_inner() + self._fitted_html()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle:
            bundle["text/html"] += self._fitted_html()
        return bundle

    def _fitted_html(self) -> str:
        if not self.__sklearn_is_fitted__():
            return ""
        rows = [("columns", ", ".join(self.columns_)), ("iterations kept", self.n_iter_)]
        rows.append(("status", self.status_))
        if self.n_iter_ in self.history_["iteration"]:
            i = self.history_["iteration"].index(self.n_iter_)
            for name, value in costs_at(self.history_, i).items():
                unit = " nats" if name == "nll" else ""
                rows.append((f"validation {name}", f"{number(value)}{unit}"))
        return table("Fitted flow, costs in the space it was trained in", (), rows)

    def _check(self, X: Any, names: bool = True) -> Float[np.ndarray, "n d"]:
        validation.check_is_fitted(self)
        if names:
            return check_data(self, X)
        X = validation.check_array(X, dtype=np.float64)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(f"Z: expected {self.n_features_in_} columns; got {X.shape[1]}.")
        return X

    def _seed(self, random_state: Any) -> int:
        return int(validation.check_random_state(random_state).randint(2**31 - 1))

    def _shape(self) -> dict[str, Any]:
        """The settings in SHAPING as they are now."""
        values = {name: getattr(self, name) for name in SHAPING}
        return values | {"dtype": np.dtype(self.dtype).name}

    def _check_continuation(self, target: Any) -> None:
        """Raise ValueError unless the settings are those that the fitted weights belong to."""
        now = self._shape()
        changed = [
            f"{name}={now[name]!r} (was {was!r})"
            for name, was in self._shaped_by.items()
            if now[name] != was
        ]
        if not eqx.tree_equal(cast(target, self.dtype), self.flow_.target):
            changed.append("target")
        if changed:
            raise ValueError(
                f"warm_start: expected the settings of the first fit; got {', '.join(changed)}."
            )
