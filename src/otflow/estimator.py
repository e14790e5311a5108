"""OTFlow: the scikit-learn face of the library."""

import copy
import dataclasses
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

import otflow
from otflow.batching import map_rows
from otflow.extras import require
from otflow.fitting import Fitted, Material, Settings, TrainingDivergedError, fit_flow
from otflow.flow import Flow
from otflow.modelfile import Model, load_model, save_model, unreadable
from otflow.precision import cast, precision
from otflow.preprocessing import Standardizer
from otflow.targets import AbstractTarget
from otflow.training import Rows
from otflow.training.batches import BatchStream
from otflow.training.checkpoint import Watch
from otflow.training.config import check_count

require("sklearn", "sklearn")
from sklearn import base  # noqa: E402
from sklearn.utils import validation  # noqa: E402

from otflow.conditions import (  # noqa: E402
    check_condition,
    check_rows,
    check_validation,
    column_names_of,
    refuse_condition,
)
from otflow.tabular import check_data, check_varying, column_names  # noqa: E402

__all__ = ["OTFlow", "TrainingDivergedError", "load"]

_DENSITY_ROWS = 2**18  # points drawn for the first-order phase of fit_density
_VALIDATION_ROWS = 2**14


class OTFlow(base.TransformerMixin, base.DensityMixin, base.BaseEstimator):
    """A normalizing flow that minimises transport + alpha nll + beta hjb (SPEC 1).

    Data is standardised inside by default; log-densities, samples and inverse transforms are in
    the data's own units, `transform` goes to the target's. Costs in `history_` are those of the
    space the flow is trained in.

    Parameters:
        alpha: weight of the nll, > 0. The larger, the better the density and the closer to
            optimal transport in the limit; the harder to train.
        beta: weight of the Hamilton-Jacobi-Bellman residual, >= 0, a regulariser.
        width: m, units a layer of the network.
        depth: L, residual layers; 0 is a sum of ridge functions, the cheapest in high dimension
            and the easiest to bring to its optimum.
        scheme: "conforming" (exact likelihood at any number of steps) or "rk4" (as published; its
            n_steps is refined while training where step doubling finds an nll error over 0.02).
        n_steps: time steps of the scheme; None is 4 for conforming, 8 for rk4. One conforming step
            is Brenier's map, the most exact for optimal transport; more steps fit densities better.
        max_iter: most optimiser steps.
        natural_iter: natural-gradient steps after those: second order, for small gaps to the
            optimum; up to 8,000 parameters.
        batch_size: rows a step.
        learning_rate: peak of the learning-rate schedule.
        patience: validations (one every 25 steps) without improvement before stopping.
        validation_fraction: share of X held out when X_val is not given; 0 uses all rows to train
            and never stops early.
        base: "gaussian" starts from the solution for the data's mean and covariance (SPEC 2.1;
            only where the target is the standard normal), None from a random network.
        random_state: seed (an integer, a NumPy RandomState or None for a fresh one).
        dtype: "float32" or "float64".
        standardize: scale every column to mean 0 and standard deviation 1 first.
        target: an object of `otflow.targets`, in the space the flow is trained in; None is the
            standard normal.
        verbose: show a progress bar (on a terminal only).

    Attributes:
        flow_: the trained `Flow`, in the standardised space.
        standardizer_: the affine map from the data's units to that space.
        history_: one entry a validation, see `otflow.training.TrainingResult`.
        n_iter_: optimiser steps behind the weights that were kept.
        status_: why training stopped.
        n_features_in_, feature_names_in_: as in scikit-learn.
        n_conditions_, condition_names_in_: the same of the condition; 0 columns without one.
        condition_scaler_: the affine map of the condition's columns; None without one.
    """

    flow_: Flow
    standardizer_: Standardizer
    condition_scaler_: Standardizer | None

    def __init__(
        self,
        alpha: float = 30.0,
        beta: float = 0.0,
        width: int = 64,
        depth: int = 1,
        scheme: str = "conforming",
        n_steps: int | None = None,
        max_iter: int = 2000,
        natural_iter: int = 0,
        batch_size: int = 1024,
        learning_rate: float = 0.01,
        patience: int = 20,
        validation_fraction: float = 0.1,
        base: str | None = "gaussian",
        random_state: Any = None,
        dtype: str = "float32",
        standardize: bool = True,
        target: AbstractTarget | None = None,
        verbose: bool = True,
    ):
        self.alpha = alpha
        self.beta = beta
        self.width = width
        self.depth = depth
        self.scheme = scheme
        self.n_steps = n_steps
        self.max_iter = max_iter
        self.natural_iter = natural_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.base = base
        self.random_state = random_state
        self.dtype = dtype
        self.standardize = standardize
        self.target = target
        self.verbose = verbose

    def fit(
        self,
        X: Any,
        y: Any = None,
        X_val: Any = None,
        condition: Any = None,
        condition_val: Any = None,
        sample_weight: Any = None,
        **watch: Any,
    ) -> "OTFlow":
        """Train on the rows of X.

        Args:
            X: (n, d) finite numbers, n >= 2, no constant column.
            y: ignored.
            X_val: (l, d) rows for early stopping; by default a share of X is held out.
            condition: (n, k) finite numbers: the flow is then one density of x for every c, and
                every other method needs a condition too. Columns are standardised inside, except
                those of 0 and 1 (one-hot categories).
            condition_val: (l, k), with X_val.
            sample_weight: (n,) numbers >= 0: what each row counts in the means of training,
                validation and standardisation. Rows of weight 0 are left out.
            watch: `checkpoint` (a file for the run's state, written every `checkpoint_every` steps
                and on Ctrl-C or SIGTERM), `resume` (go on from it where it exists, with the same
                result bit for bit), `on_validation` (called with every row of the history): the
                fields of `otflow.training.Watch`.

        Returns:
            self.

        Raises:
            ValueError, TypeError: bad data or hyperparameters, before any compute.
            OSError: the checkpoint cannot be written, or holds a run and `resume` is not set.
            TrainingDivergedError: the objective became non-finite; the weights before that are
                kept and usable.
            KeyboardInterrupt: Ctrl-C; likewise.
        """
        settings, watching = self._settings(), self._watch(watch)
        names = column_names_of(condition)
        rows = check_rows(self, X, condition, sample_weight)
        val = check_validation(self, rows, X_val, condition_val, names)
        dim = rows.x.shape[1]
        target = settings.make_target(dim)
        seed = self._seed(self.random_state)
        if val is None:
            rows, val = rows.split(self.validation_fraction, seed)
        check_varying(rows.x, self)
        fit = Standardizer.fit(rows.x, rows.weight)
        scaler = fit if self.standardize else Standardizer.identity(dim)
        c_scaler = rows.condition_scaler()
        with precision(self.dtype):
            z = rows.prepared(scaler, c_scaler, self.dtype)
            z_val = None if val is None else val.prepared(scaler, c_scaler, self.dtype)
            stream = BatchStream(z.n, max(self.batch_size, 2000), seed)
            material = Material(z, z_val, lambda k: z.take(stream.take(1)[0]))
            fitted = fit_flow(settings, material, target, seed, watching)
            return self._keep(fitted, scaler, settings, c_scaler, names)

    def fit_density(self, density: AbstractTarget, **watch: Any) -> "OTFlow":
        """Train on a density that can be sampled and evaluated, in its own units.

        Natural-gradient steps draw fresh samples and use the log-density as a control variate,
        which takes the sampling noise out of the optimum: the way to reach J*_alpha.

        Args:
            density: rho0, an object of `otflow.targets`.
            watch: as in `fit`.

        Returns:
            self.

        Raises:
            As `fit`.
        """
        settings, watching = self._settings(), self._watch(watch)
        if not isinstance(density, AbstractTarget):
            raise TypeError(
                f"density: expected an object of otflow.targets; got {type(density).__name__}."
            )
        self.n_features_in_ = density.dim
        target = settings.make_target(density.dim)
        seed = self._seed(self.random_state)
        with precision(self.dtype):
            density = cast(density, self.dtype)
            keys = jax.random.split(jax.random.key(seed), 3)
            x = density.sample(keys[0], _DENSITY_ROWS)
            x_val = density.sample(keys[1], _VALIDATION_ROWS)
            rows = max(self.batch_size, 2000)
            draw = jax.jit(lambda k: density.sample(jax.random.fold_in(keys[2], k), rows))
            scaler = Standardizer.identity(density.dim)
            material = Material(Rows(x), Rows(x_val), lambda k: Rows(draw(k)), density)
            fitted = fit_flow(settings, material, target, seed, watching)
            return self._keep(fitted, scaler, settings)

    def score_samples(self, X: Any, condition: Any = None) -> Float[np.ndarray, " n"]:
        """Log-density of every row, in nats and the data's own units, shape (n,), float64.

        A model fitted with a condition needs one here and in the methods below: (n, k), a row a
        point, or (k,), one for all.
        """
        X = self._check(X)
        z = self.standardizer_.forward(X)
        scores = self._map(self.flow_.log_prob, z, condition).astype(np.float64)
        _warn_invalid(np.isneginf(scores), "rows have log-density -inf: the map is not invertible")
        return scores + self.standardizer_.log_det

    def score(self, X: Any, y: Any = None, condition: Any = None) -> float:
        """Mean log-density of the rows, nats."""
        return float(self.score_samples(X, condition).mean())

    def sample(
        self, n_samples: int = 1, random_state: Any = None, condition: Any = None
    ) -> Float[np.ndarray, "n d"]:
        """Draws from the flow in the data's own units, shape (n_samples, d), float64.

        Args:
            n_samples: how many, >= 1.
            random_state: seed; by default the estimator's own.
            condition: (k,) or (n_samples, k), for a conditional model.
        """
        validation.check_is_fitted(self)
        check_count("n_samples", n_samples)
        state = self.random_state if random_state is None else random_state
        seed = self._seed(state)
        with precision(self.dtype):
            y = np.asarray(self.flow_.target.sample(jax.random.key(seed), n_samples))
        return self._inverse(y, condition)

    def transform(self, X: Any, condition: Any = None) -> Float[np.ndarray, "n d"]:
        """T(x): the rows carried to the target, shape (n, d), float64."""
        X = self._check(X)
        z = self.standardizer_.forward(X)
        return self._map(self.flow_.forward, z, condition).astype(np.float64)

    def fit_transform(
        self, X: Any, y: Any = None, condition: Any = None, **options: Any
    ) -> Float[np.ndarray, "n d"]:
        """`fit`, then `transform` of the same rows."""
        return self.fit(X, y, condition=condition, **options).transform(X, condition)

    def inverse_transform(self, Z: Any, condition: Any = None) -> Float[np.ndarray, "n d"]:
        """The inverse of `transform`: from the target to the data's own units, float64."""
        Z = self._check(Z, names=False)
        return self._inverse(Z, condition)

    def given(self, condition: Any) -> "OTFlow":
        """The unconditional model under one condition (k,), for `certify`, files and pipelines.

        Raises:
            ValueError: the model is unconditional, or another shape.
        """
        validation.check_is_fitted(self)
        if not self.n_conditions_:
            raise ValueError("condition: expected none, the model is unconditional; got one.")
        if np.ndim(condition) != 1:
            shape = np.shape(condition)
            raise ValueError(f"condition: expected shape ({self.n_conditions_},); got {shape}.")
        model = copy.copy(self)
        model.flow_ = self.flow_.given(self._condition(condition, 1)[0])
        model.condition_scaler_ = None
        model.__dict__.pop("condition_names_in_", None)
        return model

    def _map(
        self, method: Callable[..., Any], x: Float[np.ndarray, "n d"], condition: Any
    ) -> np.ndarray:
        """A method of the flow over the rows, each under its own condition."""
        if not self.n_conditions_:
            refuse_condition(condition)
            return map_rows(method, x)
        d, c = x.shape[1], self._condition(condition, len(x))
        return map_rows(lambda rows: method(rows[:, :d], rows[:, d:]), np.hstack([x, c]))

    def _condition(self, condition: Any, n: int) -> Float[np.ndarray, "n k"]:
        """The condition of n points in the space that the flow knows."""
        names = getattr(self, "condition_names_in_", None)
        names = None if names is None else tuple(names)
        assert self.condition_scaler_ is not None
        return self.condition_scaler_.forward(
            check_condition(condition, n, self.n_conditions_, names)
        )

    def _inverse(self, y: Float[np.ndarray, "n d"], condition: Any) -> Float[np.ndarray, "n d"]:
        def pull(*rows: Any) -> Any:
            pulled = self.flow_.pull(*rows)
            return np.column_stack([pulled.points, pulled.valid])

        found = self._map(pull, y, condition)
        _warn_invalid(found[:, -1] == 0, "rows have no inverse that is safe: the map folds")
        return self.standardizer_.inverse(found[:, :-1])

    def certify(self, X: Any, **options: Any) -> Any:
        """How optimal the fitted map is, by `otflow.certificates.certify_model` on rows of X.

        Args:
            X: (n, d) rows it was not trained on, in the data's own units.
            options: of `otflow.certificates.certify`.

        Returns:
            A `Certificate`: bracket of 1/2 W2^2, distance to the target, checks, error budget.

        Raises:
            ValueError: the model is conditional: certify `given(condition)`.
        """
        validation.check_is_fitted(self)
        return otflow.certificates.certify_model(self, X, **options)

    def save(self, path: str | Path) -> None:
        """Write the fitted model to one file that holds no code (see `otflow.load`)."""
        validation.check_is_fitted(self)
        settings = {k: v for k, v in self.get_params().items() if k != "target"}
        if not isinstance(self.random_state, (int, np.integer)):
            settings["random_state"] = None
        history = {
            name: [v if math.isfinite(v) else None for v in values]
            for name, values in self.history_.items()
        }
        training = {"history": history, "n_iter": self.n_iter_, "status": self.status_}
        columns = self.columns_ if hasattr(self, "feature_names_in_") else None
        names = getattr(self, "condition_names_in_", None)
        model = Model(
            self.flow_,
            self.standardizer_,
            columns,
            settings,
            training,
            self.condition_scaler_,
            None if names is None else tuple(names),
        )
        save_model(path, model)

    @property
    def n_conditions_(self) -> int:
        """Columns of the condition; 0 for an unconditional model."""
        return self.flow_.condition_dim

    @property
    def columns_(self) -> tuple[str, ...]:
        """Names of the columns: those of the fitted data frame, else x0, x1, ..."""
        return column_names(self, self.n_features_in_)

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

    def _check(self, X: Any, names: bool = True) -> Float[np.ndarray, "n d"]:
        validation.check_is_fitted(self)
        if names:
            return check_data(self, X)
        X = validation.check_array(X, dtype=np.float64)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(f"Z: expected {self.n_features_in_} columns; got {X.shape[1]}.")
        return X

    def _settings(self) -> Settings:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(Settings)}
        return Settings(**values)

    def _watch(self, options: dict[str, Any]) -> Watch:
        watch = Watch(**options)
        if watch.checkpoint is not None and not isinstance(self.random_state, (int, np.integer)):
            raise ValueError(
                "random_state: expected an integer where there is a checkpoint, so that the run "
                f"can be resumed; got {self.random_state!r}."
            )
        return watch

    def _seed(self, random_state: Any) -> int:
        return int(validation.check_random_state(random_state).randint(2**31 - 1))

    def _keep(
        self,
        fitted: Fitted,
        scaler: Standardizer,
        settings: Settings,
        condition_scaler: Standardizer | None = None,
        condition_names: tuple[str, ...] | None = None,
    ) -> "OTFlow":
        """Set the fitted attributes, then raise if the run did not end by itself."""
        self.condition_scaler_ = condition_scaler
        self.__dict__.pop("condition_names_in_", None)
        if condition_names is not None:
            self.condition_names_in_ = np.array(condition_names, dtype=object)
        self.standardizer_, self.status_, self.flow_ = scaler, fitted.status, fitted.flow
        self.history_, self.n_iter_ = fitted.history, fitted.n_iter
        if fitted.natural_history is not None:
            self.natural_history_ = fitted.natural_history
        fitted.raise_if_stopped(settings)
        return self


def load(path: str | Path) -> OTFlow:
    """The fitted estimator that `OTFlow.save` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a model file of otflow, damaged, or from a newer version.
    """
    model = load_model(path)
    try:
        estimator = OTFlow(**model.settings, target=model.flow.target)
        estimator._settings()
        history = {
            name: [math.nan if v is None else float(v) for v in values]
            for name, values in model.training["history"].items()
        }
        estimator.n_iter_ = int(model.training["n_iter"])
        estimator.status_ = str(model.training["status"])
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
        raise unreadable(path, error) from error
    estimator.flow_, estimator.standardizer_ = model.flow, model.standardizer
    estimator.history_, estimator.n_features_in_ = history, model.flow.dim
    estimator.condition_scaler_ = model.condition
    if model.condition_columns is not None:
        estimator.condition_names_in_ = np.array(model.condition_columns, dtype=object)
    if model.columns is not None:
        estimator.feature_names_in_ = np.array(model.columns, dtype=object)
    return estimator


def _warn_invalid(bad: np.ndarray, what: str) -> None:
    if bad.any():
        warnings.warn(
            f"{int(bad.sum())} of {bad.size} {what} there. Train longer, use more steps, or rk4.",
            UserWarning,
            stacklevel=3,
        )
