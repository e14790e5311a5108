"""A flow that moves mass and lets it grow, between two known measures (SPEC 10)."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from otflow.flow.objective import TAIL, AbstractKnownStart, kl_terms
from otflow.parallel.batching import map_rows
from otflow.potentials import ConvexStages, GaussianBase, LiftedStages
from otflow.potentials.base import AbstractStages
from otflow.schemes.base import Push
from otflow.schemes.growing import Growing
from otflow.support.checks import check_count, check_number
from otflow.support.precision import cast, dtype_of, precision
from otflow.support.statistics import Estimate
from otflow.targets import AbstractTarget


class GrowthTarget(AbstractKnownStart):
    """What is to arrive from a start: mass_y times the density of `end`.

    Args:
        start, end: densities.
        log_masses: log(mass_x / mass_y).
    """

    start: AbstractTarget
    end: AbstractTarget
    log_masses: float = eqx.field(static=True)

    def merged(self, share: float) -> "GrowthTarget":
        """With the components of `end` drawn together."""
        return GrowthTarget(self.start, self.end.merged(share), self.log_masses)

    def log_ratio(self, x: Float[Array, "n d"], pushed: Push) -> Float[Array, " n"]:
        """u: log of the density that arrives at the ends of x over the wanted one, nats."""
        u = self.start.log_prob(x) + pushed.log_mass - pushed.log_det + self.log_masses
        return u - self.end.log_prob(pushed.points)

    def miss(self, x: Float[Array, "n d"], pushed: Push, tail: float = TAIL) -> Float[Array, " n"]:
        """m (u - 1 + exp(-u)) >= 0, with a straight line below u = -tail; nats.

        The mean times the mass at the start is D(what arrives || wanted): the control variate, mean
        m exp(-u) = wanted mass / mass at the start, needs a bijection.
        """
        return jnp.exp(pushed.log_mass) * kl_terms(self.log_ratio(x, pushed), tail)


class GrowingFlow(eqx.Module):
    """mass_x start, carried and grown towards mass_y end by convex stages.

    Args:
        potential: the stages.
        scheme: as many cone steps.
        start, end: densities, with mass_x and mass_y > 0.

    Raises:
        ValueError: dimensions or numbers of steps that disagree.
    """

    potential: AbstractStages
    scheme: Growing
    start: AbstractTarget
    end: AbstractTarget
    mass_x: float = eqx.field(static=True, default=1.0)
    mass_y: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        for name in ("start", "end"):
            if (got := getattr(self, name).dim) != self.potential.dim:
                raise ValueError(f"{name}: expected dimension {self.potential.dim}; got {got}.")
        if not self.scheme.takes(self.potential):
            told = f"expected {self.potential.n_steps} steps, the potential's; got {self.scheme}."
            raise ValueError(f"scheme: {told}")
        for name in ("mass_x", "mass_y"):
            check_number(name, getattr(self, name), positive=True)

    @staticmethod
    def create(
        start: AbstractTarget,
        end: AbstractTarget,
        delta: float,
        n_steps: int,
        width: int,
        key: PRNGKeyArray,
        mass_x: float = 1.0,
        mass_y: float = 1.0,
    ) -> "GrowingFlow":
        """A flow at rest, where mass grows everywhere alike, with `width` ridges a stage."""
        scheme, dim = Growing(n_steps, delta), start.dim
        rest = GaussianBase.solve(np.zeros(dim), np.eye(dim), 1.0)
        stages = ConvexStages.create(rest, n_steps, width, key)
        level = -(delta**2) * math.log(mass_y / mass_x) / n_steps
        potential = LiftedStages(stages, jnp.full(n_steps, level, dtype_of(stages)))
        return GrowingFlow(potential, scheme, start, end, mass_x, mass_y)

    @property
    def dim(self) -> int:
        """d."""
        return self.potential.dim

    @property
    def target(self) -> GrowthTarget:
        """What is to arrive."""
        return GrowthTarget(self.start, self.end, math.log(self.mass_x / self.mass_y))

    def push(self, x: Float[np.ndarray, "n d"]) -> Push:
        """Where rows go, their growth, volume and price; NumPy."""
        return self._rows(_push, x)

    def pull(self, y: Float[np.ndarray, "n d"]) -> Push:
        """Where rows come from, and the way back; NumPy."""
        return self._rows(_pull, y)

    def at(
        self, x: Float[np.ndarray, "n d"], time: float
    ) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
        """Where rows are at a time in [0, 1], and the logarithm of their growth until then."""
        return self._rows(lambda flow, x: _at(flow, x, jnp.asarray(time, x.dtype)), x)

    def log_density(self, y: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """log of the density that arrives at y, whose integral is the mass at the end; nats."""
        return self._rows(_log_density, y)

    def _rows(self, function: Any, x: Float[np.ndarray, "n d"]) -> Any:
        dtype = dtype_of(self.potential)
        with precision(dtype):
            return map_rows(lambda rows: function(self, jnp.asarray(rows)), np.asarray(x, dtype))


@eqx.filter_jit
def _push(flow: GrowingFlow, x: Array) -> Push:
    return flow.scheme.push(flow.potential, x)


@eqx.filter_jit
def _pull(flow: GrowingFlow, y: Array) -> Push:
    return flow.scheme.pull(flow.potential, y)


@eqx.filter_jit
def _at(flow: GrowingFlow, x: Array, time: Array) -> tuple[Array, Array]:
    return flow.scheme.at(flow.potential, x, time)


@eqx.filter_jit
def _log_density(flow: GrowingFlow, y: Array) -> Array:
    back = flow.scheme.pull(flow.potential, y)
    value = flow.start.log_prob(back.points) - back.log_mass + back.log_det
    return math.log(flow.mass_x) + value


@eqx.filter_jit
def _told(flow: GrowingFlow, x: Array) -> tuple[Array, Array, Array]:
    """Transport, miss and growth."""
    pushed = flow.scheme.push(flow.potential, x)
    missed = flow.target.miss(x, pushed, math.inf)
    return pushed.transport, missed, jnp.exp(pushed.log_mass)


@dataclasses.dataclass(frozen=True)
class GrowthEvaluation:
    """The costs of a growing flow on fresh draws, with standard errors.

    Attributes:
        transport: mass_x E int (1/2 |v|^2 + delta^2/2 g^2) m dt, squared data units times mass.
        miss: D(what arrives || mass_y end), nats times mass.
        objective: transport + alpha miss: at least that of the exact minimiser.
        mass: what arrives.
        n: draws.
    """

    transport: Estimate
    miss: Estimate
    objective: Estimate
    mass: Estimate
    n: int


def evaluate_growth(
    flow: GrowingFlow, alpha: float, n: int = 20_000, seed: int = 0
) -> GrowthEvaluation:
    """The costs of a growing flow by Monte Carlo, in float64.

    Args:
        flow: the flow.
        alpha: weight of the miss, > 0.
        n: draws from the start.
        seed: of the draws.
    """
    check_number("alpha", alpha, positive=True)
    check_count("n", n, 2)
    with precision("float64"):
        flow = cast(flow, "float64")
        draws = np.asarray(flow.start.sample(jax.random.key(seed), n))
        transport, miss, growth = flow._rows(_told, draws)
    columns = (transport, miss, transport + alpha * miss, growth)
    means = [Estimate.of(flow.mass_x * values) for values in columns]
    return GrowthEvaluation(means[0], means[1], means[2], means[3], n)
