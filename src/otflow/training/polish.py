"""Natural-gradient steps: a phase of training, validated with a control variate where it can be."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from otflow.data.rows import Rows, as_rows
from otflow.flow.objective import Costs, controlled, costs
from otflow.potentials.base import AbstractPotential
from otflow.schemes.base import AbstractScheme
from otflow.support.precision import default_rules
from otflow.targets import AbstractTarget
from otflow.training.checkpoint import Checkpoint, Watch
from otflow.training.natural import NaturalConfig, NaturalDescent
from otflow.training.run import AbstractPhase, Judged, Status, TrainingResult, run_phase
from otflow.training.step import ValidCosts, equal_shares

_EVERY = 10  # steps between validations
_PATIENCE = 5  # validations without improvement before a run on data stops


@default_rules()
def polish(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    target: AbstractTarget,
    draw: Callable[[int], Float[Array, "n d"] | Rows],
    x_val: Float[Array, "k d"] | Rows,
    config: NaturalConfig,
    log_density: Callable[[Array], Array] | None = None,
    show_progress: bool = True,
    watch: Watch = Watch(),
    checkpoint: Checkpoint | None = None,
) -> TrainingResult:
    """Natural-gradient steps; the potential with the lowest validation objective is returned.

    Args:
        potential: where to start: after first-order training, not from random weights.
        scheme: the time discretisation.
        target: rho1.
        draw: the batch of a step, by its number.
        x_val: rows that decide which weights are best.
        config: hyperparameters.
        log_density: log rho0 where it is known: a control variate then takes the noise from
            gradient and validation (see `controlled`). The run never stops early.
        show_progress: a bar on a terminal.
        watch: whose callback gets every row of the history.
        checkpoint: where the run's state is kept, and taken from if it is there.

    Raises:
        ValueError: more parameters than a dense Fisher matrix takes.
    """
    phase = _Natural(potential, scheme, target, draw, as_rows(x_val), config, log_density)
    return run_phase(phase, show_progress, watch, checkpoint)


class _Natural(AbstractPhase):
    """Natural-gradient steps, a few between two validations."""

    name = "natural"

    def __init__(
        self,
        potential: AbstractPotential,
        scheme: AbstractScheme,
        target: AbstractTarget,
        draw: Callable[[int], Float[Array, "n d"] | Rows],
        x_val: Rows,
        config: NaturalConfig,
        log_density: Callable[[Array], Array] | None,
    ):
        self._descent = NaturalDescent(potential, scheme, target, config, log_density)
        self.potential, self.scheme, self.max_iter = (
            self._descent.potential,
            scheme,
            config.max_iter,
        )
        self.patience = _PATIENCE if log_density is None else None
        self._draw, self._alpha = draw, config.alpha
        self._shares = x_val.weighted(equal_shares(x_val))
        self._target, self._x_val = target, x_val
        self._log_density = None if log_density is None else _values(log_density, x_val.x)
        self._failed = 0  # steps until the last validation that were not taken

    def advance(self) -> None:
        """Steps to the next multiple of _EVERY."""
        for number in range(self.iteration, min(self.iteration + _EVERY, self.max_iter)):
            self._descent.step(self._draw(number))
        self.iteration = self._descent.iteration

    def judge(self) -> Judged:
        """Costs on the validation rows, with the control variate in the objective."""
        descent = self._descent
        found = _point_costs(descent.potential, self.scheme, self._target, self._x_val)
        terms = found.nll
        if self._log_density is not None:
            terms = controlled(terms + self._log_density)
        sums: ValidCosts = jax.device_get(ValidCosts.of(found, self._shares))
        judged = dataclasses.replace(found, nll=terms)
        value = jax.device_get(ValidCosts.of(judged, self._shares)).objective(self._alpha)
        failed, self._failed = descent.failed - self._failed, descent.failed
        row = {"val_invalid": float(sums.invalid), "failed": failed}
        usable = not math.isnan(value)
        return Judged(descent.potential, value, sums.means(), row, usable)

    @property
    def state(self) -> Any:
        """That of the descent."""
        return self._descent.state

    def restore(self, state: Any, document: dict[str, Any]) -> None:
        """Go on from there; a draw may depend on those before it."""
        self._descent.state = state
        self._failed = self._descent.failed
        for number in range(self.iteration):
            self._draw(number)

    def ended(self, status: Status) -> Status:
        """ "no_step" where there were steps to take and not one was taken."""
        tried = self._descent.iteration
        return "no_step" if tried and self._descent.failed == tried else status


@eqx.filter_jit
def _values(function: Callable[[Array], Array], x: Array) -> Array:
    return function(x)


@eqx.filter_jit
def _point_costs(
    potential: AbstractPotential, scheme: AbstractScheme, target: AbstractTarget, rows: Rows
) -> Costs:
    def point(row: Rows) -> Costs:
        row = row.take(None)  # one row, with its axis
        c = row.condition
        return costs(potential.given(c), scheme, target.given(c), row.x)

    found = jax.lax.map(point, rows, batch_size=500)
    return jax.tree.map(jnp.ravel, found)
