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

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from otflow.potentials.base import AbstractStages
from otflow.potentials.packed import apply, pairs, squares, unpack
from otflow.schemes.base import check_steps, rematerialised
from otflow.schemes.log_det import factorise_packed, packed_log_det
from otflow.schemes.newton import invert_stage
from otflow.support.checks import check_number
from otflow.support.precision import default_rules

_NEAR, _TERMS = 0.02, 9  # below it, so many terms of a series have float64's precision


class Grown(eqx.Module):
    """Where n points of mass 1 went, and what it cost.

    `log_mass` is the logarithm of the factor by which the mass grew, `log_det` that of the map's
    Jacobian determinant (nats): a density rho becomes rho exp(log_mass - log_det). `transport` is
    int (1/2 |v|^2 + delta^2/2 g^2) m dt, squared data units. `valid` is False where
    they overflow, or an inverse did not converge.
    """

    points: Float[Array, "n d"]
    log_mass: Float[Array, " n"]
    log_det: Float[Array, " n"]
    transport: Float[Array, " n"]
    valid: Bool[Array, " n"]


class Growing(eqx.Module):
    """K cone steps of convex stages; `delta`, data units, is the price of growth.

    Raises:
        ValueError, TypeError: n_steps no integer >= 1, or delta no finite number > 0.
    """

    n_steps: int = eqx.field(static=True)
    delta: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        check_steps(self.n_steps)
        check_number("delta", self.delta, positive=True)

    @default_rules()
    def push(self, potential: AbstractStages, x: Float[Array, "n d"]) -> Grown:
        """From t = 0 to t = 1.

        Raises:
            ValueError: the potential has another number of stages.
        """
        self._check(potential)

        def step(carry: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], None]:
            x, totals = carry
            t = k / self.n_steps
            found = potential.step(x, t)
            phi, slope = potential.value(x, t) / self.n_steps, x - found.points
            end, log_mass, price = self._moved(x, phi, slope)
            gained = jnp.exp(totals[:, 0]) * price
            change = self._log_det(slope, found.jacobian)
            return (end, totals + jnp.stack([log_mass, change, gained], axis=1)), None

        start = (x, jnp.zeros((x.shape[0], 3), x.dtype))
        times = jnp.arange(self.n_steps, dtype=x.dtype)
        (points, totals), _ = jax.lax.scan(rematerialised(step, self.n_steps), start, times)
        log_mass, log_det, transport = totals.T
        valid = jnp.isfinite(log_mass) & jnp.isfinite(log_det)
        return Grown(points, log_mass, log_det, transport, valid)

    @default_rules()
    def pull(self, potential: AbstractStages, y: Float[Array, "n d"]) -> Grown:
        """The points that `push` takes to y, and their push: masses and volumes of the way there.

        Every step by Newton with a line search, which converges from anywhere; not differentiable.
        """
        self._check(potential)

        def back(carry: tuple[Array, Array], t: Array) -> tuple[tuple[Array, Array], None]:
            y, valid = carry
            guess = 2 * y - self._end(potential, y, t)
            found = invert_stage(potential, y, t, guess, self._solved)
            return (found.points, valid & found.converged), None

        times = jnp.arange(self.n_steps, dtype=y.dtype) / self.n_steps
        start = (y, jnp.ones(y.shape[0], bool))
        (x, valid), _ = jax.lax.scan(back, start, times, reverse=True)
        found = self.push(potential, x)
        return Grown(x, found.log_mass, found.log_det, found.transport, valid & found.valid)

    @default_rules()
    def at(
        self, potential: AbstractStages, x: Float[Array, "n d"], time: float
    ) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
        """Where points are at a time in [0, 1], and the logarithm of their mass there."""
        self._check(potential)
        log_mass = jnp.zeros(x.shape[0], x.dtype)
        whole = int(time * self.n_steps)
        for k in range(min(whole + 1, self.n_steps)):
            x, change = self.advance(potential, x, k, min(time * self.n_steps - k, 1.0))
            log_mass = log_mass + change
        return x, log_mass

    def advance(
        self, potential: AbstractStages, x: Float[Array, "n d"], k: int, part: float = 1.0
    ) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
        """Where stage k takes points, or its first part, and the logarithm of their growth."""
        t = k / self.n_steps
        phi, slope = potential.value(x, t) / self.n_steps, x - potential.image(x, t)
        return self._moved(x, phi, slope, part)[:2]

    def _moved(
        self,
        x: Float[Array, "n d"],
        phi: Float[Array, " n"],
        slope: Float[Array, "n d"],
        part: float = 1.0,
    ) -> tuple[Float[Array, "n d"], Float[Array, " n"], Float[Array, " n"]]:
        """The end, the log-mass and the price of a step, or of its first part."""
        unit = 2 * self.delta**2
        log_share = -phi / unit
        a = jnp.exp(log_share)
        stays = log_share if part == 1 else jnp.log1p(part * jnp.expm1(log_share))
        length = part * jnp.exp(log_share - stays)
        tangent = length**2 * self._tangent(slope)
        end = x - (length * _angle(tangent))[:, None] * slope
        price = unit * jnp.expm1(log_share) ** 2 + 0.5 * a**2 * jnp.sum(slope**2, axis=1)
        return end, 2 * stays + jnp.log1p(tangent), part * self.n_steps * price

    def _tangent(self, slope: Float[Array, "n d"]) -> Float[Array, " n"]:
        """tan(angle)^2 of the step: (b / a)^2."""
        return jnp.sum(slope**2, axis=1) / (4 * self.delta**2)

    def _end(self, potential: AbstractStages, x: Float[Array, "n d"], t: Array) -> Array:
        slope = x - potential.image(x, t)
        return x - _angle(self._tangent(slope))[:, None] * slope

    def _log_det(self, slope: Float[Array, "n d"], jacobian: Float[Array, "t n"]) -> Array:
        """log det of (grad^2 c)^-1 (grad^2 c - grad^2 phi)."""
        tangent, d = self._tangent(slope), slope.shape[1]
        of_cost = jnp.log1p(tangent) - (d - 1) * jnp.log(_angle(tangent))
        return packed_log_det(jacobian + self._excess(slope)) - of_cost

    def _excess(self, slope: Float[Array, "n d"]) -> Float[Array, "t n"]:
        """grad^2 c - 1 >= 0, packed: tan(angle) / angle across the move, 1 + tan(angle)^2 along."""
        tangent = self._tangent(slope)
        along = _along(tangent) / _angle(tangent) / (4 * self.delta**2)
        rows, columns = pairs(slope.shape[1])
        across = (1 / _angle(tangent) - 1) * (rows == columns)[:, None]
        return across + along * squares(slope.T)

    def _solved(
        self,
        potential: AbstractStages,
        y: Float[Array, "n d"],
        t: Array | float,
        x: Float[Array, "n d"],
    ) -> tuple[Float[Array, " n"], Float[Array, "n d"], Float[Array, " n"]]:
        """The residual's size, the Newton step and a log-determinant, for `invert_stage`."""
        found = potential.step(x, t)
        slope = x - found.points
        residual = x - _angle(self._tangent(slope))[:, None] * slope - y
        excess = self._excess(slope)
        log_det, inverse = factorise_packed(found.jacobian + excess)
        step = apply(inverse, residual + apply(unpack(excess), residual))
        return jnp.linalg.norm(residual, axis=1), step, log_det

    def _check(self, potential: AbstractStages) -> None:
        if not isinstance(potential, AbstractStages):
            raise TypeError(f"potential: expected stages; got {type(potential).__name__}.")
        if potential.n_steps != self.n_steps:
            told = f"expected {potential.n_steps}, the potential's; got {self.n_steps}"
            raise ValueError(f"n_steps: {told}.")


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


def _along(tangent: Float[Array, " n"]) -> Float[Array, " n"]:
    """((1 + z^2) arctan(z) / z - 1) / z^2 of z^2 >= 0: sum_k (-z^2)^k 2 / ((2k + 1) (2k + 3))."""
    near, safe = tangent < _NEAR, jnp.maximum(tangent, _NEAR)
    far = ((1 + safe) * _angle(safe) - 1) / safe
    return jnp.where(near, _series(tangent, lambda k: 2 / ((2 * k + 1) * (2 * k + 3))), far)


def _series(tangent: Float[Array, " n"], coefficient: Callable) -> Float[Array, " n"]:
    """sum_k (-tangent)^k coefficient(k), by Horner's rule, where tangent is small."""
    z = jnp.minimum(tangent, _NEAR)
    total = jnp.zeros_like(z)
    for k in reversed(range(_TERMS)):
        total = coefficient(k) - z * total
    return total
