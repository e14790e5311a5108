"""The largest alpha that a data set supports: where bias and estimation error balance."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from otflow.flow.flow import Flow
from otflow.parallel.batching import map_rows
from otflow.studies.information import effective_parameters
from otflow.studies.members import Network, train_members
from otflow.studies.problems import DataProblem
from otflow.support.checks import check_count
from otflow.support.statistics import Z95
from otflow.training.ensemble import EnsembleConfig

_ALPHAS = (3.0, 10.0)


@dataclasses.dataclass(frozen=True)
class Advice:
    """A penalty for a data set, and where it comes from.

    Attributes:
        alpha: sqrt(2 n c / p_eff); NaN where c is not resolved from 0.
        interval: 95 %, from the sampling error of c alone.
        rate_constant: c, estimated; J falls short of 1/2 W2^2 by c / alpha.
        effective_parameters: p_eff, estimated.
        n: rows.
        reasoning: all of it in words.
    """

    alpha: float
    interval: tuple[float, float]
    rate_constant: float
    effective_parameters: float
    n: int
    reasoning: str

    def __str__(self) -> str:
        """The answer in two sentences."""
        if math.isnan(self.alpha):
            return (
                f"These {self.n:,} rows do not say which alpha is best: the bias could not be told "
                "from 0. For a density take alpha = 1000, for a map the default of 30."
            )
        low, high = self.interval
        known = f" [{low:.2g}, {high:.2g}]" if math.isfinite(low + high) else ""
        return (
            f"For a transport map from these {self.n:,} rows take alpha = {self.alpha:.2g}{known}: "
            "less leaves the ends further from the target than the rows could bring them, more "
            "fits their noise. For a density take as much or more, up to 1000: its nll is what "
            "alpha weighs, and early stopping on held-out rows keeps the noise out."
        )


def advise_alpha(
    X: Float[np.ndarray, "n d"], width: int = 16, max_iter: int = 1000, seed: int = 0
) -> Advice:
    """The alpha at which bias and estimation error are equal, for maps from X to N(0, I).

    A flow with penalty alpha falls short of optimal transport by c / alpha; fitted to n rows, it
    pays alpha p_eff / (2 n) for estimation (SPEC 5). Two flows at alpha = 3 and 10 give c, because
    transport_alpha = 1/2 W2^2 - 2 c / alpha + O(alpha^-2) needs no entropy; the curvature and the
    gradient noise of the second give p_eff. Both are estimates for this network.

    Args:
        X: (n, d) rows in the space to train in (standardise the columns first), n >= 50.
        width: of the network (depth 0, one conforming step).
        max_iter: Adam steps of each flow.
        seed: of network and batches.

    Returns:
        The advice: a larger alpha fits noise, a smaller one leaves bias that the data could remove.

    Raises:
        ValueError, TypeError: bad rows or settings.
    """
    check_count("max_iter", max_iter)
    X = np.asarray(X, float)
    if X.ndim != 2 or len(X) < 50:
        raise ValueError(f"X: expected shape (n, d) with n >= 50; got {X.shape}.")
    problem, network = DataProblem(X, 0.2, seed), Network(width)
    config = EnsembleConfig(first_order=max_iter, natural=60, natural_rows=2000, monotone=True)
    starts = [network.start(problem, alpha, seed) for alpha in _ALPHAS]
    flows = train_members(starts, problem, _ALPHAS, [seed, seed], config)
    moved = [_transport(flow, problem.rows) for flow in flows]
    difference = (moved[1] - moved[0]) / (2 / _ALPHAS[0] - 2 / _ALPHAS[1])
    c = float(difference.mean())
    error = float(difference.std(ddof=1) / math.sqrt(len(difference)))
    p_eff = effective_parameters(flows[1], problem.rows, _ALPHAS[1])
    n = len(X)
    low, alpha, high = (
        math.sqrt(2 * n * value / p_eff) if value > 0 and p_eff > 0 else math.nan
        for value in (c - Z95 * error, c, c + Z95 * error)
    )
    if c <= Z95 * error:
        alpha = math.nan
    reasoning = (
        f"bias c/alpha with c = {c:.3g} +- {Z95 * error:.2g} (from the transport at alpha = "
        f"{_ALPHAS[0]:g} and {_ALPHAS[1]:g}) equals estimation error alpha p_eff/(2n) with "
        f"p_eff = {p_eff:.1f} and n = {n} at alpha = {alpha:.3g}"
    )
    if math.isnan(alpha):
        reasoning = f"c = {c:.3g} +- {Z95 * error:.2g} is not resolved from 0: no advice"
    return Advice(alpha, (low, high), c, p_eff, n, reasoning)


def _transport(flow: Flow, x: np.ndarray) -> np.ndarray:
    return map_rows(lambda rows: flow.push(rows).transport, x)
