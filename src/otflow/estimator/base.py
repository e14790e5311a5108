"""The part of OTFlow that scikit-learn asks for: rows, names, pickles, continuation."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from otflow.certificates.course import Course
from otflow.data.columns import make_column_map
from otflow.data.preprocessing import ColumnMap, Standardizer
from otflow.estimator.fitting import Fitted, fit_flow
from otflow.estimator.settings import DECIDED, Settings
from otflow.flow.flow import Flow
from otflow.flow.normalisation import Integral
from otflow.flow.objective import costs_at
from otflow.parallel.devices import use_all_cores
from otflow.support.extras import require
from otflow.support.frames import check_kinds, check_names, names_of
from otflow.support.html import number, table
from otflow.support.installation import warn_of_faults
from otflow.support.precision import cast
from otflow.training import Watch

require("sklearn", "sklearn")
from sklearn import base  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
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
    "arcsinh",
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
    bounds: Any
    dequantize: Any
    arcsinh: Any
    dtype: Any
    target: Any
    natural_iter: int
    _shaped_by: dict[str, Any]
    history_: dict[str, list[float]]
    n_iter_: int
    status_: str
    decided_: dict[str, Any]
    n_train_: int | None
    integral_: Integral | None
    condition_scaler_: Standardizer | None
    natural_history_: dict[str, list[float]]
    random_state: Any

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

    def _check(self, X: Any) -> Float[np.ndarray, "n d"]:
        validation.check_is_fitted(self)
        return check_data(self, X)

    def _check_ends(self, Z: Any) -> Float[np.ndarray, "n d"]:
        """Rows of the target: columns named as `transform` names them, or as the data's are."""
        validation.check_is_fitted(self)
        own = tuple(self.get_feature_names_out())
        check_names("Z", Z, self.columns_ if names_of(Z) == self.columns_ else own)
        check_kinds("Z", Z)
        Z = validation.check_array(Z, dtype=np.float64, input_name="Z")
        if Z.shape[1] != self.n_features_in_:
            raise ValueError(f"Z: expected {self.n_features_in_} columns; got {Z.shape[1]}.")
        return Z

    def _seed(self, random_state: Any) -> int:
        return int(validation.check_random_state(random_state).randint(2**31 - 1))

    def _settings(self) -> Settings:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(Settings)}
        return Settings(**values)

    def _column_map(self, X: Float[np.ndarray, "n d"]) -> ColumnMap:
        """The columns' maps that the settings ask for and the rows decide."""
        return make_column_map(self.bounds, self.dequantize, X, self.columns_, self.arcsinh)

    def _know(self, dim: int, names: Sequence[str] | None = None) -> None:
        """Number and names of the columns, where what is fitted is no array."""
        self.n_features_in_ = dim
        self.__dict__.pop("feature_names_in_", None)
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)

    def _refuse(self, kind: str, **expected: Any) -> None:
        """Raise ValueError where a setting is of no use with a kind of data."""
        for name, none in expected.items():
            if getattr(self, name) != none:
                got = getattr(self, name)
                raise ValueError(f"{name}: expected {none} with {kind}; got {got!r}.")

    def _watch(self, options: dict[str, Any]) -> Watch:
        watch = Watch(**options)
        warn_of_faults()
        use_all_cores()  # before the question below starts JAX's devices
        needs = "a checkpoint" if watch.checkpoint is not None else ""
        if jax.process_count() > 1:
            needs = "a job of several processes"
        if needs and not isinstance(self.random_state, (int, np.integer)):
            raise ValueError(
                f"random_state: expected an integer where there is {needs}, so that the run "
                f"can be repeated; got {self.random_state!r}."
            )
        return watch

    def _train(self, *what: Any) -> Fitted:
        """One flow: `fit_flow`."""
        return fit_flow(*what)

    def _keep(
        self,
        fitted: Fitted,
        columns: ColumnMap,
        scaler: Standardizer,
        condition_scaler: Standardizer | None = None,
        condition_names: tuple[str, ...] | None = None,
    ) -> Any:
        """Set the fitted attributes, then raise if the run did not end by itself."""
        self.condition_scaler_ = condition_scaler
        self.__dict__.pop("condition_names_in_", None)
        if condition_names is not None:
            self.condition_names_in_ = np.array(condition_names, dtype=object)
        self.standardizer_, self.status_, self.flow_ = scaler, fitted.status, fitted.flow
        self.column_map_, self._shaped_by = columns, self._shape()
        self.history_, self.n_iter_ = fitted.history, fitted.n_iter
        self.integral_, self.n_train_ = fitted.integral, fitted.n_train
        if fitted.integral is not None and fitted.integral.above_one:
            warnings.warn(fitted.integral.warning(), UserWarning, stacklevel=4)
        if (told := self._course().warning) is not None:
            warnings.warn(told, ConvergenceWarning, stacklevel=4)
        self.decided_ = {
            name: getattr(fitted.settings, name) for name in DECIDED if getattr(self, name) is None
        }
        self.__dict__.pop("natural_history_", None)
        if fitted.natural_history is not None:
            self.natural_history_ = fitted.natural_history
        fitted.raise_if_stopped()
        return self

    def _course(self) -> Course:
        """How the last fit ended."""
        return Course.of(self.history_, self.status_, self.n_iter_, self.natural_iter > 0)

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
