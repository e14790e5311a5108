"""Outliers as scikit-learn finds them: rows less likely than nearly all rows not trained on."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from otflow.data.tabular import check_data
from otflow.estimator.estimator import OTFlow
from otflow.support.checks import check_fraction
from otflow.support.extras import require

require("sklearn", "sklearn")
from sklearn import base  # noqa: E402
from sklearn.utils import _safe_indexing, validation  # noqa: E402

_HELD_OUT = 0.2  # of the rows
_LEAST = 20


class OTFlowOutlier(base.OutlierMixin, base.BaseEstimator):
    """Novelty by log-density, with a threshold from rows that took no part in training.

    A fifth of the rows is held out; of their m log-densities the k-th smallest is the threshold,
    k = floor(contamination (m + 1)). A new row of the same law lies below it with probability
    k / (m + 1), at most `contamination`, whatever the flow learned: all m + 1 orders are equally
    likely (split conformal prediction). That is the mean over tables; for one table it varies by
    about sqrt(contamination / m).

    Parameters:
        flow: an `OTFlow`, copied before it is fitted; None is `OTFlow(verbose=False)`.
        contamination: share of good rows that may be flagged, in (0, 1).

    Attributes:
        flow_: the fitted flow.
        offset_: the threshold, nats, in the data's own units.
        n_held_out_: m, rows behind it.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Source: Laxhammar and Falkman, Conformal prediction for distribution-independent anomaly
    detection (2010).
    """

    def __init__(self, flow: OTFlow | None = None, contamination: float = 0.05):
        self.flow = flow
        self.contamination = contamination

    def fit(self, X: Any, y: Any = None) -> "OTFlowOutlier":
        """Train on four fifths of the rows and take the threshold from the others.

        Args:
            X: (n, d) rows of good data.
            y: ignored.

        Raises:
            ValueError, TypeError: as `OTFlow.fit`; too few rows for the contamination.
        """
        share = check_fraction("contamination", self.contamination)
        if self.flow is not None and not isinstance(self.flow, OTFlow):
            raise TypeError(f"flow: expected an OTFlow; got {type(self.flow).__name__}.")
        flow = OTFlow(verbose=False) if self.flow is None else base.clone(self.flow)
        n = len(check_data(self, X, fitting=True))
        m, needed = int(_HELD_OUT * n), max(_LEAST, int(np.ceil(1 / share)) - 1)
        if m < needed:
            least = int(np.ceil(needed / _HELD_OUT))
            raise ValueError(
                f"X: expected at least {least} rows for contamination {share:g}; got {n}."
            )
        seed = validation.check_random_state(flow.random_state).randint(2**31 - 1)
        order = np.random.default_rng(seed).permutation(n)
        self.flow_ = flow.fit(_safe_indexing(X, order[m:]))
        scores = np.sort(self.flow_.score_samples(_safe_indexing(X, order[:m])))
        self.n_held_out_ = m
        self.offset_ = float(scores[int(share * (m + 1) + 1e-9) - 1])
        return self

    def score_samples(self, X: Any) -> Float[np.ndarray, " n"]:
        """Log-density of every row, nats, in the data's own units."""
        validation.check_is_fitted(self)
        check_data(self, X)
        return self.flow_.score_samples(X)

    def decision_function(self, X: Any) -> Float[np.ndarray, " n"]:
        """Log-density above the threshold, nats: negative for outliers."""
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(self.score_samples(X) - self.offset_, nan=0.0, neginf=-np.inf)

    def predict(self, X: Any) -> Int[np.ndarray, " n"]:
        """-1 for outliers, 1 for the others."""
        return np.where(self.score_samples(X) < self.offset_, -1, 1)
