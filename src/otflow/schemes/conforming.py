"""The conforming scheme: explicit Euler with the exact change of variables of its own map (SPEC 3).

The discrete map is itself a normalizing flow: its likelihood is exact at any number of steps, and
J(theta) >= J*_alpha wherever every step is invertible. One step is Brenier's map
T = x - grad Phi(x, 0).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from otflow.potentials.base import AbstractPotential, AbstractStages
from otflow.schemes.base import AbstractScheme, Push, check_steps, rematerialised, straightness
from otflow.schemes.implicit import inverse
from otflow.schemes.log_det import barrier_log_det, log_det, packed_log_det, shortfall
from otflow.schemes.newton import invert_stage, invert_step
from otflow.support.precision import default_rules

_UNROLLED = 4  # steps up to which no loop is made of the violation, which training asks for


class Conforming(AbstractScheme):
    """x_(k+1) = x_k - h grad Phi(x_k, t_k), log-det of I - h Hess Phi exactly (SPEC 3).

    A point at which some I - h Hess Phi is not positive definite is not `valid` and has log-det
    -inf. With `barrier`, as in training, its log-det is a finite, steep extension instead, so that
    an optimiser is pushed back. `pull` solves each step's convex problem by damped Newton.
    """

    n_steps: int = eqx.field(static=True, default=4)
    barrier: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        check_steps(self.n_steps)

    def takes(self, potential: AbstractPotential) -> bool:
        """Whether the potential is one for n_steps steps, or for any number."""
        return potential.n_steps in (None, self.n_steps)

    def for_training(self) -> "Conforming":
        """The same scheme with the barrier."""
        return Conforming(self.n_steps, barrier=True)

    @default_rules()
    def violation(self, potential: AbstractPotential, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Shortfall of the eigenvalues of I - h Hess Phi below a margin, summed over the steps."""
        if potential.bijective:
            return super().violation(potential, x)
        h = 1 / self.n_steps
        eye = jnp.eye(x.shape[1], dtype=x.dtype)

        def step(carry: tuple[Array, Array], t: Array) -> tuple[tuple[Array, Array], None]:
            x, total = carry
            found = potential.gradient_and_hessian(x, t)
            total = total + shortfall(eye - h * found.hessian)
            return (jax.lax.stop_gradient(x - h * found.gradient[:, :-1]), total), None

        start = (x, jnp.zeros(x.shape[0], x.dtype))
        step = rematerialised(step, self.n_steps)
        few = self.n_steps <= _UNROLLED
        return jax.lax.scan(step, start, self._times(x.dtype), unroll=few)[0][1]

    @default_rules()
    def push(self, potential: AbstractPotential, x: Float[Array, "n d"]) -> Push:
        """From t = 0 to t = 1 by n_steps Euler steps.

        Raises:
            ValueError: the potential is one of another number of steps.
        """
        if not self.takes(potential):
            raise ValueError(
                f"n_steps: expected {potential.n_steps}, the potential's; got {self.n_steps}."
            )

        def step(carry: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], None]:
            x, totals = carry
            end, change = self._advance(potential, x, k / self.n_steps)
            half_speed = 0.5 * self.n_steps * jnp.sum((end - x) ** 2, axis=1)
            return (end, totals + jnp.stack([change, half_speed], axis=1)), None

        start = (x, jnp.zeros((x.shape[0], 2), x.dtype))
        if self.n_steps == 1:
            (points, totals), _ = step(start, jnp.zeros((), x.dtype))
        else:
            times = jnp.arange(self.n_steps, dtype=x.dtype)
            (points, totals), _ = jax.lax.scan(rematerialised(step, self.n_steps), start, times)
        log_det_, transport = totals.T
        bend = straightness(x, points, transport)
        return Push(points, log_det_, transport, bend, jnp.isfinite(log_det_))

    def _advance(
        self, potential: AbstractPotential, x: Float[Array, "n d"], t: Array
    ) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
        """The end of the step at time t, and its log-determinant."""
        if isinstance(potential, AbstractStages):
            stepped = potential.step(x, t)
            return stepped.points, packed_log_det(stepped.jacobian)
        h = 1 / self.n_steps
        determinant = barrier_log_det if self.barrier else log_det
        found = potential.gradient_and_hessian(x, t)
        jacobian = jnp.eye(x.shape[1], dtype=x.dtype) - h * found.hessian
        return x - h * found.gradient[:, :-1], determinant(jacobian)

    @default_rules()
    def pull(self, potential: AbstractPotential, y: Float[Array, "n d"]) -> Push:
        """The exact inverse of push: every step solved by Newton to rounding."""
        stages = isinstance(potential, AbstractStages)
        return inverse(Conforming._pull_stages if stages else Conforming._pull, self, potential, y)

    def _pull(self, potential: AbstractPotential, y: Float[Array, "n d"]) -> Push:
        def back(carry: tuple[Array, Array], times: tuple[Array, Array]) -> tuple[tuple, None]:
            x, converged = invert_step(potential, carry[0], *times, 1 / self.n_steps)
            return (x, carry[1] & converged), None

        times = self._times(y.dtype), self._times(y.dtype, 1)
        (x, valid), _ = jax.lax.scan(back, (y, jnp.ones(y.shape[0], bool)), times, reverse=True)
        return self.push(potential, x).inverted(x, valid)

    def _times(self, dtype: Any, first: int = 0) -> Float[Array, " K"]:
        """Where the steps start, or with `first` 1 where they end."""
        return jnp.asarray((np.arange(self.n_steps) + first) / self.n_steps, dtype)

    def _pull_stages(self, potential: AbstractStages, y: Float[Array, "n d"]) -> Push:
        """Newton leaves each stage's log-determinant behind; no push follows."""

        def back(carry: tuple, t: Array) -> tuple[tuple, None]:
            end, guess, log_det_, transport, valid = carry
            found = invert_stage(potential, end, t, guess)
            x = found.points
            log_det_ = log_det_ - found.log_det
            transport = transport + 0.5 * self.n_steps * jnp.sum((end - x) ** 2, axis=1)
            straight_on = 2 * x - end
            return (x, straight_on, log_det_, transport, valid & found.converged), None

        times = self._times(y.dtype)
        zero = jnp.zeros(y.shape[0], y.dtype)
        guess = 2 * y - potential.image(y, times[-1])  # as if it went on in a straight line
        start = (y, guess, zero, zero, jnp.ones(y.shape[0], bool))
        x, _, log_det_, transport, valid = jax.lax.scan(back, start, times, reverse=True)[0]
        return Push(x, log_det_, transport, straightness(x, y, transport), valid)

    @default_rules()
    def trajectories(
        self, potential: AbstractPotential, x: Float[Array, "n d"]
    ) -> Float[Array, "steps+1 n d"]:
        """Positions after every step."""

        def step(x: Array, t: Array) -> tuple[Array, Array]:
            x = x - potential.gradient(x, t)[:, :-1] / self.n_steps
            return x, x

        path = jax.lax.scan(step, x, self._times(x.dtype))[1]
        return jnp.concatenate([x[None], path])
