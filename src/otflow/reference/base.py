"""What every exact reference of the finite-penalty problem offers."""

from __future__ import annotations

import abc
import math
from typing import Any

import numpy as np
from jaxtyping import Float

from otflow.reference.keys import generator_from_key
from otflow.support.checks import check_count


class AbstractReference(abc.ABC):
    """The exact minimiser of J_alpha = transport + alpha KL for one density rho0 and N(0, I).

    Fields (float64 numbers; transport in squared data units, the rest of the costs in nats):
        alpha: the penalty weight, math.inf for the optimal transport limit.
        transport: 1/2 E|T(x) - x|^2 for the optimal map T of this alpha.
        kl: KL(T#rho0 || N(0, I)); 0 at alpha = inf.
        half_w2_squared: 1/2 W2^2(rho0, N(0, I)), the limit of J_alpha.
        entropy: H(rho0) = -E[log rho0].
        rate_constant: c = 1/2 Var(psi) under N(0, I), for which
            half_w2_squared - objective ~ c / alpha and kl ~ c / alpha^2.
        dim: the dimension d.

    Source: SPEC 1 and 4.
    """

    alpha: float
    transport: float
    kl: float
    half_w2_squared: float
    entropy: float
    rate_constant: float
    dim: int

    @property
    def objective(self) -> float:
        """J*_alpha = transport + alpha KL; at alpha = inf the transport alone."""
        return self.transport if math.isinf(self.alpha) else self.transport + self.alpha * self.kl

    @abc.abstractmethod
    def map(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """The optimal map T of this alpha at the points x."""

    def jacobian(self, x: Float[np.ndarray, "n d"], step: float) -> Float[np.ndarray, "n d d"]:
        """dT_i/dx_j at the points x, by central differences over `step`."""
        moved = step * np.eye(self.dim)
        slopes = [(self.map(x + by) - self.map(x - by)) / (2 * step) for by in moved]
        return np.stack(slopes, axis=2)

    @abc.abstractmethod
    def from_scores(self, scores: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """The points of rho0 at standard normal scores: random, or spread evenly."""

    def sample(self, key: Any, n: int) -> Float[np.ndarray, "n d"]:
        """n samples of rho0, determined by `key` (an int seed or a JAX PRNG key)."""
        shape = (check_count("n", n), self.dim)
        return self.from_scores(generator_from_key(key).standard_normal(shape))

    @abc.abstractmethod
    def log_prob(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """log rho0 at the points x, in nats."""

    @abc.abstractmethod
    def psi(self, y: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """The target-side Kantorovich potential of the limit problem, mean zero under N(0, I).

        grad psi(y) = y - T_inf^(-1)(y), the sign of SPEC 4: log(rhohat/rho1) ~ -psi/alpha.
        """
