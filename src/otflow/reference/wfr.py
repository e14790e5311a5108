"""Transport with growth (Wasserstein-Fisher-Rao) in closed form: Diracs and Gaussians (SPEC 10).

A measure of density rho moves with velocity v and grows at the rate g at the price
int int (1/2 |v|^2 + delta^2/2 g^2) rho dx dt. In r = sqrt(mass) and theta = |x| / (2 delta) this is
2 delta^2 times the metric of a cone, whose geodesics are straight lines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

from otflow.reference.keys import generator_from_key
from otflow.support.checks import check_array, check_count, check_number, check_points


def wfr_diracs(distance: float, mass_x: float, mass_y: float, delta: float) -> float:
    """The price of turning one Dirac into another, squared data units times mass.

    2 delta^2 (m0 + m1 - 2 sqrt(m0 m1) cos(min(distance / (2 delta), pi/2))): beyond pi delta it is
    cheaper to let one die and the other grow. About m/2 distance^2 for equal masses nearby.

    Arguments:
        distance: |x - y| >= 0, data units.
        mass_x, mass_y: >= 0.
        delta: the price of growth, > 0, data units.

    Raises TypeError or ValueError for bad arguments. Source: SPEC 10.
    """
    angle = check_number("distance", distance, positive=False)
    m0 = check_number("mass_x", mass_x, positive=False)
    m1 = check_number("mass_y", mass_y, positive=False)
    angle /= 2 * check_number("delta", delta, positive=True)
    apart = math.sqrt(m0 * m1) * 4 * math.sin(0.5 * min(angle, math.pi / 2)) ** 2
    return 2 * delta**2 * ((math.sqrt(m0) - math.sqrt(m1)) ** 2 + apart)


@final
@dataclass(frozen=True, eq=False)
class GaussianGrowth:
    """The exact transport with growth between two Gaussians of one covariance; see `wfr_gaussians`.

    Fields: transport, its price in squared data units times mass; tilt w (d,) with |w| = tan(angle)
    and the map's displacement (d,) = 2 delta angle w / |w|; height, the potential at mean_x.
    """

    mean_x: Float[np.ndarray, " d"]
    mean_y: Float[np.ndarray, " d"]
    cov: Float[np.ndarray, "d d"]
    mass_x: float
    mass_y: float
    delta: float
    transport: float
    tilt: Float[np.ndarray, " d"]
    displacement: Float[np.ndarray, " d"]
    height: float

    def map(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Where the points end: all move by the displacement, (n, d)."""
        return check_points("x", x, len(self.tilt)) + self.displacement

    def potential(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """phi(x), (n,): v = -grad phi at first, and 1 + g/2 = exp(-phi / (2 delta^2))."""
        x = check_points("x", x, len(self.tilt)) - self.mean_x
        return self.height - 2 * self.delta * x @ self.tilt

    def log_growth(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """The logarithm of the factor by which the mass at the points grows, (n,)."""
        return math.log1p(self.tilt @ self.tilt) - self.potential(x) / self.delta**2

    def sample(self, key: Any, n: int) -> Float[np.ndarray, "n d"]:
        """n samples of the first Gaussian, determined by `key`."""
        noise = generator_from_key(key).standard_normal((check_count("n", n), len(self.tilt)))
        return self.mean_x + noise @ np.linalg.cholesky(self.cov).T


def wfr_gaussians(
    mean_x: Any,
    mean_y: Any,
    cov: Any,
    *,
    delta: float,
    mass_x: float = 1.0,
    mass_y: float = 1.0,
) -> GaussianGrowth:
    """The exact transport with growth from mass_x N(mean_x, cov) to mass_y N(mean_y, cov).

    The potential is linear: every point moves by the same vector s = 2 delta angle n, and the mass
    is tilted by exp((2 / delta) w'x), w = tan(angle) n, which shifts a Gaussian by
    (2 / delta) cov w more. |x|^2/2 - phi is convex, so that this is optimal. The price is

        2 delta^2 (m0 + m1 - 2 sqrt(m0 m1) cos(angle) exp(-w' cov w / (2 delta^2))),

    that of two Diracs where cov vanishes, and 1/2 |mean_y - mean_x|^2 as delta grows.

    Arguments:
        mean_x, mean_y: (d,), data units.
        cov: (d, d), symmetric positive definite.
        delta: the price of growth, > 0, data units.
        mass_x, mass_y: > 0.

    Raises TypeError or ValueError for bad arguments. Source: derived here; SPEC 10 for the problem.
    """
    mean_x = check_array("mean_x", mean_x, (None,))
    mean_y = check_array("mean_y", mean_y, mean_x.shape)
    cov = check_array("cov", cov, (mean_x.size, mean_x.size))
    if not np.allclose(cov, cov.T) or np.linalg.eigvalsh(cov)[0] <= 0:
        raise ValueError("cov: expected a symmetric positive definite matrix.")
    delta = check_number("delta", delta, positive=True)
    m0 = check_number("mass_x", mass_x, positive=True)
    m1 = check_number("mass_y", mass_y, positive=True)
    variance, basis = np.linalg.eigh(cov)
    apart = basis.T @ (mean_y - mean_x)

    def tilt(angle: float) -> Float[np.ndarray, " d"]:
        stretch = 1.0 if angle == 0 else angle / math.tan(angle)
        return apart / (2 * delta * stretch + 2 * variance / delta)

    def miss(angle: float) -> float:
        return float(np.linalg.norm(tilt(angle))) * math.cos(angle) - math.sin(angle)

    angle = brentq(miss, 0.0, math.pi / 2, xtol=1e-15, rtol=1e-15) if apart.any() else 0.0
    along = tilt(angle)
    spread = float(variance @ along**2)
    length = np.linalg.norm(along)
    w = basis @ along
    displacement = 2 * delta * angle * w / length if length else np.zeros_like(w)
    # log m1/m0 = log1p(|w|^2) - height / delta^2 + 2 spread / delta^2
    height = delta**2 * (math.log1p(length**2) - math.log(m1 / m0)) + 2 * spread
    shared = math.sqrt(m0 * m1)
    lost = -math.expm1(math.log(math.cos(angle)) - spread / (2 * delta**2))
    price = 2 * delta**2 * ((math.sqrt(m0) - math.sqrt(m1)) ** 2 + 2 * shared * lost)
    return GaussianGrowth(mean_x, mean_y, cov, m0, m1, delta, price, w, displacement, float(height))
