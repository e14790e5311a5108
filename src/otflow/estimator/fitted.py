"""What a fitted OTFlow does: densities, samples, maps, certificates, files."""

import copy
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from otflow.data.columns import BY_COLUMN, as_set, check_on_grid, named
from otflow.data.preprocessing import Standardizer
from otflow.flow.normalisation import Integral, doubt
from otflow.model.model import Model, package_versions
from otflow.model.modelfile import save_model
from otflow.support.checks import check_count
from otflow.support.extras import require
from otflow.support.jsontext import plain
from otflow.support.memory import check_fits
from otflow.support.statistics import MeanScore

require("sklearn", "sklearn")
from sklearn.utils import validation  # noqa: E402

from otflow.data.tabular import in_container  # noqa: E402
from otflow.estimator.base import TabularEstimator  # noqa: E402

_BATCH = 2**14  # rows a call


class FittedEstimator(TabularEstimator):
    """The part of `OTFlow` that uses the flow; see there."""

    random_state: Any
    target: Any
    condition_scaler_: Standardizer | None
    integral_: Integral | None
    natural_history_: dict[str, list[float]]
    fit: Callable[..., Any]

    def score_samples(self, X: Any, condition: Any = None) -> Float[np.ndarray, " n"]:
        """Log-density of every row, in nats and the data's own units, shape (n,), float64.

        It is that of the continuous variable at X as given, also in dequantised columns (there X
        is the middle of its cell); -inf outside the bounds. A model fitted with a condition needs
        one here and in the methods below: (n, k), a row a point, or (k,), one for all. Rows too far
        out for the flow's precision have -inf too, with a warning that counts them. Warns too where
        `integral_` is above one, or the map may fold and that was not measured.
        """
        return self._scores(self._check(X), condition)

    def _scores(self, X: Float[np.ndarray, "n d"], condition: Any) -> Float[np.ndarray, " n"]:
        scores, invalid = self.model_.log_prob(X, condition)
        _warn_rows(int(invalid.sum()), invalid.size, "have log-density -inf", self._why_lost())
        self._warn_mass(stacklevel=4)
        return scores

    def _why_lost(self) -> str:
        """Why the flow gives no number for a row, and what helps."""
        far = self._too_far()
        if self.flow_.potential.bijective:
            return far
        return f"the map folds there (train longer, use more steps, or convex stages), or {far}"

    def _too_far(self) -> str:
        return f"they lie too far out for {np.dtype(self.dtype).name}"

    def _warn_mass(self, stacklevel: int) -> None:
        """Say where the density is known not to integrate to one, or not known to."""
        if (told := doubt(self.flow_, self.integral_)) is not None:
            warnings.warn(told, UserWarning, stacklevel)

    def log_mass_bound(
        self, X: Any, n_draws: int = 16, random_state: Any = None, condition: Any = None
    ) -> Float[np.ndarray, " n"]:
        """Log-probability of the rounded values, in expectation from below, shape (n,), nats.

        log mean_k p(x + s (u_k - 1/2)) + sum log s over the dequantised columns, u uniform: by
        Jensen's inequality its mean is at most the log-mass of the cell around x (with columns
        that are not rounded: its density there), the less below the more draws. One draw is the
        usual bound of dequantisation.

        Args:
            X: (n, d) rows on the grid of the dequantised columns.
            n_draws: K, >= 1.
            random_state: seed of the noise; by default the estimator's own.
            condition: as in `score_samples`.

        Raises:
            ValueError: no column is dequantised, or values off the grid.
        """
        X = self._check(X)
        check_count("n_draws", n_draws)
        columns = self.column_map_
        if not any(columns.step):
            raise ValueError("dequantize: expected rounded columns in the fitted model; got none.")
        check_on_grid(columns, X, self.columns_)
        seed = self._seed(self.random_state if random_state is None else random_state)
        noise = np.random.default_rng(seed)
        draws = [self._scores(columns.dequantize(X, noise), condition) for _ in range(n_draws)]
        mass = logsumexp(draws, axis=0) - math.log(n_draws) + columns.log_cell
        return np.where(columns.inside(X).all(axis=1), mass, -np.inf)

    def score(self, X: Any, y: Any = None, condition: Any = None) -> float:
        """Mean log-density of the rows, nats; y is ignored, a condition is given by its name.

        It is -inf where one row has no density, with a warning: how many, the mean of the others.
        """
        if y is not None and condition is None and self.n_conditions_:
            raise ValueError(
                "condition: expected one by its name, score(X, condition=C); got it as y, which "
                "scikit-learn passes and which is ignored."
            )
        scores = self.score_samples(X, condition)
        if (mean := MeanScore.of(scores)).without:
            warnings.warn(f"{mean}.", UserWarning, stacklevel=2)
        return float(scores.mean())

    def sample(self, n_samples: int = 1, random_state: Any = None, condition: Any = None) -> Any:
        """Draws from the flow in the data's own units, shape (n_samples, d), float64.

        Dequantised columns are rounded. A data frame where `set_output` asks for one.

        Args:
            n_samples: how many, >= 1.
            random_state: seed; by default the estimator's own.
            condition: (n_samples, k) or (k,), where the model takes one.

        Raises:
            MemoryError: more rows than memory holds; see `sample_pieces`.
        """
        n, seed = self._draws(n_samples, random_state)
        check_fits("n_samples", n, self.n_features_in_, "sample_pieces draws any number.")
        x, valid = self.model_.sample(n, seed, condition)
        self._warn_unsafe(int((~valid).sum()), n)
        self._warn_mass(stacklevel=3)
        return in_container(self, x)

    def sample_pieces(
        self, n_samples: int, random_state: Any = None, condition: Any = None
    ) -> Iterator[Float[np.ndarray, "k d"]]:
        """The rows of `sample`, bit for bit, in arrays of at most 65,536: for any number of them.

        The same seed gives the same rows, the first ones whatever n_samples is, but for rounding
        where a last piece of fewer than 2^14 is computed by another program.

        Args:
            All as in `sample`.
        """
        n, seed = self._draws(n_samples, random_state)
        return self._pieces(n, self.model_.sample_pieces(n, seed, condition))

    def _draws(self, n_samples: Any, random_state: Any) -> tuple[int, int]:
        """How many, and the seed."""
        validation.check_is_fitted(self)
        n = check_count("n_samples", n_samples)
        return n, self._seed(self.random_state if random_state is None else random_state)

    def _pieces(self, n: int, drawn: Iterator[Any]) -> Iterator[Float[np.ndarray, "k d"]]:
        unsafe = 0
        for x, valid in drawn:
            unsafe += int((~valid).sum())
            yield x
        self._warn_unsafe(unsafe, n)
        self._warn_mass(stacklevel=3)

    def transform(self, X: Any, condition: Any = None) -> Float[np.ndarray, "n d"]:
        """T(x): the rows carried to the target, shape (n, d), float64.

        A data frame where `set_output` asks for one, with columns otflow0, otflow1, ...

        Not finite, with a warning that counts them, for rows too far out for the flow's precision.

        Raises:
            ValueError: values outside the bounds.
        """
        z = self.model_.forward(self._check(X), condition)
        lost = ~np.isfinite(z).all(axis=1)
        told = "are carried to no finite point"
        _warn_rows(int(lost.sum()), lost.size, told, self._too_far())
        return z

    def fit_transform(self, X: Any, y: Any = None, condition: Any = None, **options: Any) -> Any:
        """`fit`, then `transform` of the same rows."""
        return self.fit(X, y, condition=condition, **options).transform(X, condition)

    def inverse_transform(self, Z: Any, condition: Any = None) -> Any:
        """The inverse of `transform`: from the target to the data's own units, float64.

        Not rounded. A data frame with the data's columns where `set_output` asks for one.
        """
        x, valid = self.model_.inverse(self._check_ends(Z), condition)
        self._warn_unsafe(int((~valid).sum()), valid.size)
        return in_container(self, x, Z)

    def _warn_unsafe(self, bad: int, n: int) -> None:
        _warn_rows(bad, n, "have no inverse that is safe", self._why_lost())

    def given(self, condition: Any) -> Any:
        """The unconditional model under one condition (k,), for `certify`, files and pipelines.

        Raises:
            ValueError: the model is unconditional, or another shape.
        """
        validation.check_is_fitted(self)
        model = copy.copy(self)
        model.flow_ = self.model_.given(condition).flow
        model.target = None if self.target is None else model.flow_.target
        model.condition_scaler_ = None
        model.__dict__.pop("condition_names_in_", None)
        return model

    @property
    def model_(self) -> Model:
        """The flow in the data's own units, without the estimator around it."""
        validation.check_is_fitted(self)
        return Model(
            self.flow_,
            self.standardizer_,
            self.columns_ if hasattr(self, "feature_names_in_") else None,
            condition=self.condition_scaler_,
            condition_columns=self.condition_names_,
            column_map=self.column_map_,
            versions={},
        )

    @property
    def n_conditions_(self) -> int:
        """Columns of the condition; 0 for an unconditional model."""
        return self.flow_.condition_dim

    @property
    def condition_names_(self) -> tuple[str, ...] | None:
        """Names of those columns, where the fitted condition was a data frame."""
        names = getattr(self, "condition_names_in_", None)
        return None if names is None else tuple(names)

    def save(self, path: str | Path) -> None:
        """Write the fitted model to one file that holds no code.

        `otflow.load(path)` and `OTFlow.load(path)` read it back.
        """
        validation.check_is_fitted(self)
        settings = {k: v for k, v in self.get_params().items() if k != "target"}
        if not isinstance(self.random_state, (int, np.integer)):
            settings["random_state"] = None
        for name in BY_COLUMN:
            settings[name] = named(settings[name], self.columns_)
        training: dict[str, Any] = {"history": plain(self.history_), "n_iter": self.n_iter_}
        training |= {"status": self.status_, "decided": self.decided_, "n_train": self.n_train_}
        # as they were set: the settings have columns by name, and no target
        training["set"] = {name: as_set(getattr(self, name)) for name in BY_COLUMN}
        training["set"]["own_target"] = self.target is not None
        if self.integral_ is not None:
            training["integral"] = dataclasses.astuple(self.integral_)
        if hasattr(self, "natural_history_"):
            training["natural_history"] = plain(self.natural_history_)
        if hasattr(self, "blocks_"):
            training["blocks"] = plain([dataclasses.asdict(block) for block in self.blocks_])
        versions = package_versions()
        model = dataclasses.replace(
            self.model_, settings=settings, training=training, versions=versions
        )
        save_model(path, model)


def _warn_rows(bad: int, n: int, what: str, why: str, stacklevel: int = 4) -> None:
    if bad:
        warnings.warn(f"{bad} of {n} rows {what}: {why}.", UserWarning, stacklevel)
