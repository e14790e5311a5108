"""What a fitted OTFlow does: densities, samples, maps, certificates, files."""

import math
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

import otflow
from otflow.batching import map_rows
from otflow.columns import check_on_grid, named
from otflow.extras import require
from otflow.modelfile import Model, save_model
from otflow.precision import precision
from otflow.training.config import check_count

require("sklearn", "sklearn")
from sklearn.utils import validation  # noqa: E402

from otflow.estimator_base import TabularEstimator  # noqa: E402
from otflow.tabular import in_container  # noqa: E402


class FittedEstimator(TabularEstimator):
    """The part of `OTFlow` that uses the flow; see there."""

    random_state: Any
    history_: dict[str, list[float]]
    n_iter_: int
    status_: str

    def score_samples(self, X: Any) -> Float[np.ndarray, " n"]:
        """Log-density of every row, in nats and the data's own units, shape (n,), float64.

        It is that of the continuous variable at X as given, also in dequantised columns (there X
        is the middle of its cell); -inf outside the bounds.
        """
        return self._scores(self._check(X))

    def _scores(self, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        inside = self.column_map_.inside(X).all(axis=1)
        scores = np.full(len(X), -np.inf)
        if inside.any():
            x = X[inside]
            found = map_rows(self.flow_.log_prob, self._to_flow(x)).astype(np.float64)
            _warn_invalid(
                np.isneginf(found), "rows have log-density -inf: the map is not invertible"
            )
            scores[inside] = found + self.standardizer_.log_det + self.column_map_.log_det(x)
        return scores

    def log_mass_bound(
        self, X: Any, n_draws: int = 16, random_state: Any = None
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
        draws = [self._scores(columns.dequantize(X, noise)) for _ in range(n_draws)]
        mass = logsumexp(draws, axis=0) - math.log(n_draws) + columns.log_cell
        return np.where(columns.inside(X).all(axis=1), mass, -np.inf)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-density of the rows, nats."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """Draws from the flow in the data's own units, shape (n_samples, d), float64.

        Dequantised columns are rounded. A data frame where `set_output` asks for one.

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
        return in_container(self, self.column_map_.round(self._inverse(y)))

    def transform(self, X: Any) -> Float[np.ndarray, "n d"]:
        """T(x): the rows carried to the target, shape (n, d), float64.

        A data frame where `set_output` asks for one, with columns otflow0, otflow1, ...

        Raises:
            ValueError: values outside the bounds.
        """
        z = self._to_flow(self._check(X))
        return map_rows(self.flow_.forward, z).astype(np.float64)

    def inverse_transform(self, Z: Any) -> Any:
        """The inverse of `transform`: from the target to the data's own units, float64.

        Not rounded. A data frame with the data's columns where `set_output` asks for one.
        """
        return in_container(self, self._inverse(self._check(Z, names=False)), Z)

    def _inverse(self, y: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        def pull(rows: Any) -> Any:
            pulled = self.flow_.pull(rows)
            return np.column_stack([pulled.points, pulled.valid])

        found = map_rows(pull, y)
        _warn_invalid(found[:, -1] == 0, "rows have no inverse that is safe: the map folds")
        return self._from_flow(found[:, :-1])

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
        for name in ("bounds", "dequantize"):
            settings[name] = named(settings[name], self.columns_)
        history = {
            name: [v if math.isfinite(v) else None for v in values]
            for name, values in self.history_.items()
        }
        training = {"history": history, "n_iter": self.n_iter_, "status": self.status_}
        columns = self.columns_ if hasattr(self, "feature_names_in_") else None
        model = Model(
            self.flow_, self.standardizer_, columns, settings, training, column_map=self.column_map_
        )
        save_model(path, model)


def _warn_invalid(bad: np.ndarray, what: str) -> None:
    if bad.any():
        warnings.warn(
            f"{int(bad.sum())} of {bad.size} {what} there. Train longer, use more steps, or rk4.",
            UserWarning,
            stacklevel=4,
        )
