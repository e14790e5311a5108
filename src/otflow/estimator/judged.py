"""What a fitted OTFlow is worth: summaries, certificates and effective parameters."""

import math
from pathlib import Path
from typing import Any

import numpy as np

import otflow
from otflow.certificates.budget import trainable_parameters
from otflow.certificates.summarise import summarise
from otflow.certificates.summary import Summary
from otflow.estimator.fitted import FittedEstimator
from otflow.support.extras import require

require("sklearn", "sklearn")
from sklearn.utils import validation  # noqa: E402


class JudgedEstimator(FittedEstimator):
    """The part of `OTFlow` that says how good a fit is; see there."""

    @staticmethod
    def load(path: str | Path) -> Any:
        """The fitted estimator that `save` wrote: `otflow.load`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a model file of otflow, damaged, or from a newer version.
        """
        return otflow.load(path)

    @property
    def effective_parameters_(self) -> float | None:
        """p_eff, how many parameters the training rows determine; None where nobody measured it.

        J of the validation rows less J of the training batches is alpha p_eff / N on average
        (Akaike's argument, SPEC 5): here that gap at the weights that were kept, between 0 and all
        parameters. Its noise is that of the validation rows.
        """
        validation.check_is_fitted(self)
        history, p = self.history_, trainable_parameters(self.flow_.potential)
        if self.n_train_ is None or self.n_iter_ not in history["iteration"]:
            return None
        row, alpha = history["iteration"].index(self.n_iter_), float(self.used("alpha"))
        try:
            gap = sum(
                (history[f"val_{name}"][row] - history[f"train_{name}"][row]) * weight
                for name, weight in (("nll", 1.0), ("transport", 1 / alpha))
            )
        except KeyError:
            return None
        return float(np.clip(self.n_train_ * gap, 0.0, p)) if math.isfinite(gap) else None

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

    def summary(
        self,
        X: Any,
        condition: Any = None,
        X_train: Any = None,
        condition_train: Any = None,
        random_state: Any = 0,
    ) -> Summary:
        """Is the fit good? A verdict with the figures behind it; print it.

        The nll beside a Gaussian's and a Gaussian mixture's on the same rows, calibration, a
        two-sample test, the bend of the paths, the round trip, the density's integral, how
        training ended, and columns that a density does not like.

        Args:
            X: (n, d) rows it was not trained on, n >= 40.
            condition: of them, where the model takes one.
            X_train: the rows it was trained on, for the baselines to be fitted to; by default they
                are fitted to four fifths of X and scored on the fifth, five times.
            condition_train: of those.
            random_state: seed of draws, folds and permutations.

        Raises:
            ValueError: too few rows, or other columns.
        """
        rows = self._check(X)
        train = None if X_train is None else self._check(X_train)
        known = (self._course(), self.integral_, condition, train, condition_train)
        return summarise(self.model_, rows, *known, seed=self._seed(random_state))
