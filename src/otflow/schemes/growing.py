"""Transport with growth in steps whose mass and volume are exact: lines on a cone (SPEC 10).

The price int (1/2 |v|^2 + delta^2/2 g^2) m dt of a point of mass m is 2 delta^2 times the squared
length of its path on the cone with radius r = sqrt(m) and angle |x| / (2 delta). The optimum has
v = -grad Phi and g = -Phi / delta^2 there, so a step is a straight line: with phi = h Phi as the
logarithm of the share that stays, a = exp(-phi / (2 delta^2)), it goes from (1, 0) to (a, b) with
b / a = |grad phi| / (2 delta), in closed form:

    T(x) = x - 2 delta arctan(|grad phi| / (2 delta)) grad phi / |grad phi|
    m(x) = a^2 + b^2 = exp(-phi / delta^2) (1 + |grad phi|^2 / (4 delta^2))
    price = 2 delta^2 / h ((a - 1)^2 + b^2)

that is, with g and v at the start, a = 1 + h g / 2 and b = h |v| / (2 delta). As delta grows, T is
x - grad phi, m is 1 and the price 1/2 |grad phi|^2 / h: the conforming scheme.

T(x) = y says grad phi(x) = grad_x c(x, y), c = -2 delta^2 log cos^2(|x - y| / (2 delta)), whose
Hessian is at least 1. So if |x|^2/2 - phi is strongly convex, as that of convex stages is, then
c(., y) - phi is too: T is a bijection of R^d for every delta, and one step is optimal between the
start and its own end. A gradient of phi of any size moves a point by less than pi delta.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from otflow.potentials.base import AbstractPotential, AbstractStages
from otflow.potentials.packed import apply, pairs, squares, unpack
from otflow.schemes.base import AbstractScheme, Push, check_steps, rematerialised
from otflow.schemes.log_det import factorise_packed, packed_log_det
from otflow.schemes.newton import invert_stage
from otflow.support.checks import check_number
from otflow.support.precision import default_rules

_NEAR, _TERMS = 0.02, 9  # below it, so many terms of a series have float64's precision


class _Turn(NamedTuple):
    """grad phi, the tangent's square of the angle by which a step turns, and angle / tangent."""

    slope: Float[Array, "n d"]
    tangent: Float[Array, " n"]
    angle: Float[Array, " n"]

    def end(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Where the step takes the points."""
        return x - self.angle[:, None] * self.slope


class Growing(AbstractScheme):
    """K cone steps of convex stages; `delta`, data units, is the price of growth.

    `transport` is int (1/2 |v|^2 + delta^2/2 g^2) m dt, squared data units, and `straightness` is 0
    on geodesics of the cone. A push is not `valid` where it overflows.

    Raises:
        ValueError, TypeError: n_steps no integer >= 1, or delta no finite number > 0.
    """

    n_steps: int = eqx.field(static=True)
    delta: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        check_steps(self.n_steps)
        check_number("delta", self.delta, positive=True)

    def takes(self, potential: AbstractPotential) -> bool:
        """Whether it is convex stages for n_steps steps."""
        return isinstance(potential, AbstractStages) and potential.n_steps == self.n_steps

    @default_rules()
    def push(self, potential: AbstractPotential, x: Float[Array, "n d"]) -> Push:
        """From t = 0 to t = 1.

        Raises:
            TypeError, ValueError: the potential has no stages, or another number of them.
        """
        stages = self._stages(potential)

        def step(carry: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], None]:
            x, totals = carry
            t = k / self.n_steps
            found = stages.step(x, t)
            turn = self._turn(x - found.points)
            log_share = -stages.value(x, t) / self.n_steps / (2 * self.delta**2)
            gained = jnp.exp(totals[:, 0]) * self._price(log_share, turn.slope)
            grown = 2 * log_share + jnp.log1p(turn.tangent)
            change = self._log_det(turn, found.jacobian)
            return (turn.end(x), totals + jnp.stack([grown, change, gained], axis=1)), None

        start = (x, jnp.zeros((x.shape[0], 3), x.dtype))
        times = jnp.arange(self.n_steps, dtype=x.dtype)
        (points, totals), _ = jax.lax.scan(rematerialised(step, self.n_steps), start, times)
        log_mass, log_det, transport = totals.T
        least = cone_price(points - x, log_mass, self.delta)
        bend = jnp.maximum(2 * (transport - least), 0.0)
        valid = jnp.isfinite(log_mass) & jnp.isfinite(log_det)
        return Push(points, log_det, transport, bend, valid, log_mass=log_mass)

    @default_rules()
    def pull(self, potential: AbstractPotential, y: Float[Array, "n d"]) -> Push:
        """The inverse of push: every step by Newton with a line search; not differentiable."""
        stages = self._stages(potential)

        def back(carry: tuple[Array, Array], t: Array) -> tuple[tuple[Array, Array], None]:
            y, valid = carry
            guess = 2 * y - self._turn(y - stages.image(y, t)).end(y)
            found = invert_stage(stages, y, t, guess, self._solved)
            return (found.points, valid & found.converged), None

        times = jnp.arange(self.n_steps, dtype=y.dtype) / self.n_steps
        start = (y, jnp.ones(y.shape[0], bool))
        (x, valid), _ = jax.lax.scan(back, start, times, reverse=True)
        return self.push(stages, x).inverted(x, valid)

    @default_rules()
    def trajectories(
        self, potential: AbstractPotential, x: Float[Array, "n d"]
    ) -> Float[Array, "steps+1 n d"]:
        """Positions after every step."""
        stages, path = self._stages(potential), [x]
        for k in range(self.n_steps):
            path.append(self.advance(stages, path[-1], k)[0])
        return jnp.stack(path)

    @default_rules()
    def at(
        self, potential: AbstractStages, x: Float[Array, "n d"], time: Array | float
    ) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
        """Where points are at a time in [0, 1], and the logarithm of their mass there."""
        potential = self._stages(potential)
        log_mass = jnp.zeros(x.shape[0], x.dtype)
        for k in range(self.n_steps):
            part = jnp.clip(time * self.n_steps - k, 0.0, 1.0)
            x, change = self.advance(potential, x, k, part)
            log_mass = log_mass + change
        return x, log_mass

    def advance(
        self, potential: AbstractStages, x: Float[Array, "n d"], k: int, part: Array | float = 1.0
    ) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
        """Where stage k takes points, or its first part, and the logarithm of their growth."""
        t = k / self.n_steps
        log_share = -potential.value(x, t) / self.n_steps / (2 * self.delta**2)
        stays = log_share
        if not isinstance(part, float):  # the end of a whole step may be near the cone's apex
            stays = jnp.where(part < 1, jnp.log1p(part * jnp.expm1(log_share)), log_share)
        shorter = part * jnp.exp(log_share - stays)
        turn = self._turn(shorter[:, None] * (x - potential.image(x, t)))
        return turn.end(x), 2 * stays + jnp.log1p(turn.tangent)

    def _turn(self, slope: Float[Array, "n d"]) -> _Turn:
        tangent = jnp.sum(slope**2, axis=1) / (4 * self.delta**2)
        return _Turn(slope, tangent, _angle(tangent))

    def _price(self, log_share: Float[Array, " n"], slope: Float[Array, "n d"]) -> Array:
        """Of a step, for a unit of mass where it starts: 2 delta^2 / h ((a - 1)^2 + b^2)."""
        across = 0.5 * jnp.exp(2 * log_share) * jnp.sum(slope**2, axis=1)
        return self.n_steps * (2 * self.delta**2 * jnp.expm1(log_share) ** 2 + across)

    def _log_det(self, turn: _Turn, jacobian: Float[Array, "t n"]) -> Float[Array, " n"]:
        """log det of (grad^2 c)^-1 (grad^2 c - grad^2 phi)."""
        across = turn.slope.shape[1] - 1
        of_cost = jnp.log1p(turn.tangent) - across * jnp.log(turn.angle)
        return packed_log_det(jacobian + self._excess(turn)) - of_cost

    def _excess(self, turn: _Turn) -> Float[Array, "t n"]:
        """grad^2 c - 1 >= 0, packed: tan(angle) / angle across the move, 1 + tan(angle)^2 along."""
        along = _along(turn.tangent, turn.angle) / turn.angle / (4 * self.delta**2)
        rows, columns = pairs(turn.slope.shape[1])
        across = (1 / turn.angle - 1) * (rows == columns)[:, None]
        return across + along * squares(turn.slope.T)

    def _solved(
        self,
        potential: AbstractStages,
        y: Float[Array, "n d"],
        t: Array | float,
        x: Float[Array, "n d"],
    ) -> tuple[Float[Array, " n"], Float[Array, "n d"], Float[Array, " n"]]:
        """The residual's size, the Newton step and a log-determinant, for `invert_stage`."""
        found = potential.step(x, t)
        turn = self._turn(x - found.points)
        residual = turn.end(x) - y
        excess = self._excess(turn)
        log_det, inverse = factorise_packed(found.jacobian + excess)
        step = apply(inverse, residual + apply(unpack(excess), residual))
        return jnp.linalg.norm(residual, axis=1), step, log_det

    def _stages(self, potential: AbstractPotential) -> AbstractStages:
        if not isinstance(potential, AbstractStages):
            raise TypeError(f"potential: expected stages; got {type(potential).__name__}.")
        if potential.n_steps != self.n_steps:
            told = f"expected {potential.n_steps}, the potential's; got {self.n_steps}"
            raise ValueError(f"n_steps: {told}.")
        return potential


def cone_price(
    moved: Float[Array, "n d"], log_mass: Float[Array, " n"], delta: float
) -> Float[Array, " n"]:
    """The least price of moving a point so far while its mass grows from 1: 2 delta^2 chord^2."""
    square = jnp.sum(moved**2, axis=1) / (4 * delta**2)
    safe = jnp.clip(square, 1e-12, math.pi**2)
    turned = jnp.where(square < 1e-12, square, 4 * jnp.sin(0.5 * jnp.sqrt(safe)) ** 2)
    root = jnp.exp(0.5 * log_mass)
    return 2 * delta**2 * (jnp.expm1(0.5 * log_mass) ** 2 + root * turned)


def _angle(tangent: Float[Array, " n"]) -> Float[Array, " n"]:
    """arctan(z) / z of z^2 >= 0, smooth at 0: sum_k (-z^2)^k / (2k + 1)."""
    near, safe = tangent < _NEAR, jnp.maximum(tangent, _NEAR)
    root = jnp.sqrt(safe)
    return jnp.where(near, _series(tangent, lambda k: 1 / (2 * k + 1)), jnp.arctan(root) / root)


def _along(tangent: Float[Array, " n"], angle: Float[Array, " n"]) -> Float[Array, " n"]:
    """((1 + z^2) angle - 1) / z^2 of z^2 >= 0: sum_k (-z^2)^k 2 / ((2k + 1) (2k + 3))."""
    near, safe = tangent < _NEAR, jnp.maximum(tangent, _NEAR)
    far = ((1 + safe) * angle - 1) / safe
    return jnp.where(near, _series(tangent, lambda k: 2 / ((2 * k + 1) * (2 * k + 3))), far)


def _series(tangent: Float[Array, " n"], coefficient: Callable) -> Float[Array, " n"]:
    """sum_k (-tangent)^k coefficient(k), by Horner's rule, where tangent is small."""
    z = jnp.minimum(tangent, _NEAR)
    total = jnp.zeros_like(z)
    for k in reversed(range(_TERMS)):
        total = coefficient(k) - z * total
    return total
