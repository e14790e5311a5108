"""The exact answer in one dimension, for normal mixtures and for any density: SPEC 4.

In the normal-score coordinate s = Phi^(-1)(F(x)) write the optimal map as y = s + w(s). Stein's
identity E[s w] = E[w'] turns SPEC 4's objective into

    J_alpha(w) = E_s[ 1/2 (s + w - X(s))^2 + alpha (w^2/2 + w' - log(1 + w')) ],      s ~ N(0, 1),

strictly convex in w, with a KL that is non-negative point by point and free of cancellation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float
from scipy import special

from otflow.reference.base import AbstractReference
from otflow.reference.densities import AbstractDensity1D, Mixture1D
from otflow.reference.displacement import solve_displacement
from otflow.reference.numerics import PiecewisePolynomial
from otflow.reference.panels import QuantilePanels, quantile_panels
from otflow.reference.tabulate import tabulate
from otflow.support.checks import check_alpha, check_array, check_points


@final
@dataclass(frozen=True, eq=False)
class OneDimensionalReference(AbstractReference):
    """The exact answer for a density on the line; see `mixture_1d` and `density_1d`.

    Beyond the common fields: the density, its quantile panels, and the displacement w(s) = y - s of
    the optimal push-forward from the target in the normal-score coordinate (None at alpha = inf,
    where it is zero). Points may be (n, 1) or (n,); the map returns the shape it was given.
    """

    alpha: float
    transport: float
    kl: float
    half_w2_squared: float
    entropy: float
    rate_constant: float
    dim: int
    density: AbstractDensity1D
    panels: QuantilePanels
    displacement: PiecewisePolynomial | None

    def map(self, x: Float[np.ndarray, "n *one"]) -> Float[np.ndarray, "n *one"]:
        """T(x) = s + w(s) at s = Phi^(-1)(F(x)); (n,) -> (n,) and (n, 1) -> (n, 1).

        Beyond |s| = 9.5 (probability 2e-21) w continues linearly in s. Raises ValueError where F(x)
        or 1 - F(x) is zero: outside the support of rho0.
        """
        points = _line("x", x)
        s = self.density.normal_score(points.ravel())
        if not np.all(np.isfinite(s)):
            outside = points.ravel()[~np.isfinite(s)][0]
            raise ValueError(f"Expected x inside the support of rho0; got {float(outside)!r}.")
        mapped = s if self.displacement is None else s + self.displacement(s)
        return mapped.reshape(points.shape)

    def from_scores(self, scores: Float[np.ndarray, "n 1"]) -> Float[np.ndarray, "n 1"]:
        """F^(-1)(Phi(scores)), (n, 1) -> (n, 1)."""
        return self.panels.quantile(scores.ravel())[:, None]

    def quantile(self, u: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """F^(-1)(u) for probabilities u strictly between 0 and 1, (n,) -> (n,)."""
        probabilities = check_array("u", u, (None,))
        if np.any(probabilities <= 0) or np.any(probabilities >= 1):
            raise ValueError(f"Expected u inside (0, 1); got {u!r}.")
        return self.panels.quantile(special.ndtri(probabilities))

    def log_prob(self, x: Float[np.ndarray, "n *one"]) -> Float[np.ndarray, " n"]:
        """log rho0(x) in nats, (n,) or (n, 1) -> (n,)."""
        return self.density.log_pdf(_line("x", x).ravel())

    def psi(self, y: Float[np.ndarray, "n *one"]) -> Float[np.ndarray, " n"]:
        """The target-side Kantorovich potential, psi'(y) = y - F^(-1)(Phi(y)), mean zero; (n,)."""
        return self.panels.psi(_line("y", y).ravel())


def _line(name: str, x: Any) -> Float[np.ndarray, "..."]:
    return check_array(name, x, (None,)) if np.ndim(x) == 1 else check_points(name, x, 1)


def solve_1d(density: AbstractDensity1D, alpha: Any) -> OneDimensionalReference:
    """The exact minimiser of J_alpha for a density on the line and the target N(0, 1).

    Arguments:
        density: a `Mixture1D` or the result of `tabulate`.
        alpha: penalty weight > 0; math.inf gives the quantile map y = Phi^(-1)(F(x)).

    Raises TypeError or ValueError for bad arguments. Source: SPEC 4 and this module's docstring.
    """
    if not isinstance(density, AbstractDensity1D):
        raise TypeError(f"Expected density to be an AbstractDensity1D; got {type(density)}.")
    alpha = check_alpha(alpha)
    panels = quantile_panels(density)
    transport, kl, displacement = panels.half_w2_squared, 0.0, None
    if not math.isinf(alpha):
        solution = solve_displacement(panels, alpha)
        transport, kl, displacement = solution.transport, solution.kl, solution.displacement
    return OneDimensionalReference(
        alpha=alpha,
        transport=transport,
        kl=kl,
        half_w2_squared=panels.half_w2_squared,
        entropy=panels.entropy,
        rate_constant=panels.rate_constant,
        dim=1,
        density=density,
        panels=panels,
        displacement=displacement,
    )


def mixture_1d(weights: Any, means: Any, stds: Any, alpha: Any) -> OneDimensionalReference:
    """The exact answer for rho0 = sum_k weights[k] N(means[k], stds[k]^2).

    Arguments:
        weights, means, stds: (k,) each; positive weights that sum to 1, positive stds, data units.
        alpha: penalty weight > 0, or math.inf.

    Raises ValueError or TypeError for bad arguments. Source: SPEC 4.
    """
    return solve_1d(Mixture1D(weights, means, stds), alpha)


def density_1d(
    log_density: Any,
    alpha: Any,
    support: Any = (-math.inf, math.inf),
    *,
    centre: Any = 0.0,
    scale: Any = 1.0,
    breaks: Any = (),
) -> OneDimensionalReference:
    """The exact answer for any density on an interval, given its normalised logarithm.

    Arguments are those of `tabulate`, and alpha, the penalty weight > 0 or math.inf. For a sweep
    over alpha call `tabulate` once and `solve_1d` for every alpha: the panels are then shared. An
    unbounded density is resolved only as far as float64 resolves its singular points.

    Raises ValueError or TypeError for bad arguments. Source: SPEC 4.
    """
    alpha = check_alpha(alpha)
    density = tabulate(log_density, support, centre=centre, scale=scale, breaks=breaks)
    return solve_1d(density, alpha)
