"""OTFlow: the scikit-learn face of the library."""

import dataclasses
import math
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
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
from otflow.training.batches import BatchStream
from otflow.training.checkpoint import Watch
from otflow.training.config import check_count

require("sklearn", "sklearn")
from sklearn import base  # noqa: E402
from sklearn.utils import validation  # noqa: E402

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
    """

    flow_: Flow
    standardizer_: Standardizer

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

    def fit(self, X: Any, y: Any = None, X_val: Any = None, **watch: Any) -> "OTFlow":
        """Train on the rows of X.

        Args:
            X: (n, d) finite numbers, n >= 2, no constant column.
            y: ignored.
            X_val: (k, d) rows for early stopping; by default a share of X is held out.
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
        X = check_data(self, X, fitting=True)
        X_val = None if X_val is None else check_data(self, X_val)
        target = settings.make_target(X.shape[1])
        seed = self._seed(self.random_state)
        X, X_val = self._split(X, X_val, seed)
        check_varying(X, self)
        scaler = Standardizer.fit(X) if self.standardize else Standardizer.identity(X.shape[1])
        with precision(self.dtype):
            z = jnp.asarray(scaler.forward(X), self.dtype)
            z_val = None if X_val is None else jnp.asarray(scaler.forward(X_val), self.dtype)
            stream = BatchStream(len(z), max(self.batch_size, 2000), seed)
            material = Material(z, z_val, lambda k: z[stream.take(1)[0]])
            fitted = fit_flow(settings, material, target, seed, watching)
            return self._keep(fitted, scaler, settings)

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
            material = Material(x, x_val, draw, density)
            fitted = fit_flow(settings, material, target, seed, watching)
            return self._keep(fitted, scaler, settings)

    def score_samples(self, X: Any) -> Float[np.ndarray, " n"]:
        """Log-density of every row, in nats and the data's own units, shape (n,), float64."""
        X = self._check(X)

        def log_prob(rows: Any) -> np.ndarray:
            found = np.asarray(self.flow_.log_prob(self.standardizer_.forward(rows)), np.float64)
            return found + self.standardizer_.log_det

        scores = map_rows(log_prob, X)
        _warn_invalid(np.isneginf(scores), "rows have log-density -inf: the map is not invertible")
        return scores

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-density of the rows, nats."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Float[np.ndarray, "n d"]:
        """Draws from the flow in the data's own units, shape (n_samples, d), float64.

        Args:
            n_samples: how many, >= 1.
            random_state: seed; by default the estimator's own.
        """
        validation.check_is_fitted(self)
        check_count("n_samples", n_samples)
        state = self.random_state if random_state is None else random_state
        seed = self._seed(state)
        with precision(self.dtype):
            y = np.asarray(self.flow_.target.sample(jax.random.key(seed), n_samples))
        return self._inverse(y)

    def transform(self, X: Any) -> Float[np.ndarray, "n d"]:
        """T(x): the rows carried to the target, shape (n, d), float64."""
        X = self._check(X)

        def forward(rows: Any) -> np.ndarray:
            z: Any = self.standardizer_.forward(rows)
            return np.asarray(self.flow_.forward(z), np.float64)

        return map_rows(forward, X)

    def inverse_transform(self, Z: Any) -> Float[np.ndarray, "n d"]:
        """The inverse of `transform`: from the target to the data's own units, float64."""
        Z = self._check(Z, names=False)
        return self._inverse(Z)

    def _inverse(self, y: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        def pull(rows: Any) -> tuple[np.ndarray, np.ndarray]:
            pulled = self.flow_.pull(rows)
            return self.standardizer_.inverse(np.asarray(pulled.points)), np.asarray(pulled.valid)

        x, valid = map_rows(pull, y)
        _warn_invalid(~valid, "rows have no inverse that is safe: the map folds")
        return x

    def certify(self, X: Any, **options: Any) -> Any:
        """How optimal the fitted map is, by `otflow.certificates.certify_model` on rows of X.

        Args:
            X: (n, d) rows it was not trained on, in the data's own units.
            options: of `otflow.certificates.certify`.

        Returns:
            A `Certificate`: bracket of 1/2 W2^2, distance to the target, checks, error budget.
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
        model = Model(self.flow_, self.standardizer_, columns, settings, training)
        save_model(path, model)

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

    def _keep(self, fitted: Fitted, scaler: Standardizer, settings: Settings) -> "OTFlow":
        """Set the fitted attributes, then raise if the run did not end by itself."""
        self.standardizer_, self.status_, self.flow_ = scaler, fitted.status, fitted.flow
        self.history_, self.n_iter_ = fitted.history, fitted.n_iter
        if fitted.natural_history is not None:
            self.natural_history_ = fitted.natural_history
        fitted.raise_if_stopped(settings)
        return self

    def _split(self, X: np.ndarray, X_val: Any, seed: int) -> tuple[np.ndarray, Any]:
        n_val = int(self.validation_fraction * X.shape[0])
        if X_val is not None or n_val == 0:
            return X, X_val
        order = np.random.default_rng(seed).permutation(X.shape[0])
        return X[order[n_val:]], X[order[:n_val]]


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
