"""A run of natural-gradient steps with validation, best weights and a history."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from otflow.data.rows import Rows, as_rows
from otflow.flow.objective import Costs, costs
from otflow.potentials.base import AbstractPotential
from otflow.schemes.base import AbstractScheme
from otflow.targets import AbstractTarget
from otflow.training.checkpoint import Checkpoint, Watch
from otflow.training.loop import History, Status, TrainingResult
from otflow.training.natural import NaturalConfig, NaturalDescent, excess
from otflow.training.progress import TrainingProgress
from otflow.training.step import ValidCosts, equal_shares

_PHASE = "natural"
_EVERY = 10  # steps between validations
_PATIENCE = 5  # validations without improvement before a run on data stops
_FAR = 1e-3  # share of points with |log ratio| > 1 up to which the control variate is used


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
        log_density: log rho0 where it is known. Once nearly all log ratios are below 1, a control
            variate removes the noise from gradient and validation. The run never stops early.
        show_progress: a bar on a terminal.
        watch: whose callback gets every row of the history.
        checkpoint: where the run's state is kept, and taken from if it is there.

    Raises:
        ValueError: more parameters than a dense Fisher matrix takes.
    """
    descent = NaturalDescent(potential, scheme, target, config, log_density)
    run = _Run(descent, scheme, target, as_rows(x_val), log_density)
    run.watch = watch
    saved = checkpoint and checkpoint.restore(_PHASE, (descent.state, run.best))
    if saved:
        (descent.state, run.best), document = saved
        run.resume(document)
        for number in range(descent.iteration):  # a draw may depend on those before it
            draw(number)
    try:
        with TrainingProgress(config.max_iter, show_progress) as bar:
            while run.status is None:
                due = descent.iteration % _EVERY == 0 or descent.iteration == config.max_iter
                if due and run.validated != descent.iteration:
                    run.validate()
                    bar.update(descent.iteration, run.latest)
                    if checkpoint is not None:
                        tree, ended = (descent.state, run.best), run.status is not None
                        checkpoint.keep(_PHASE, tree, run.document(), ended)
                if run.status is None:
                    descent.step(draw(descent.iteration))
    except KeyboardInterrupt:
        run.status = "interrupted"
        if checkpoint is not None:
            checkpoint.flush()
    assert run.status is not None
    return TrainingResult(run.best, scheme, run.history, run.status, run.best_iteration)


class _Run:
    """The state of one run between steps: history, best weights and the reason to stop."""

    def __init__(
        self,
        descent: NaturalDescent,
        scheme: AbstractScheme,
        target: AbstractTarget,
        x_val: Rows,
        log_density: Callable[[Array], Array] | None,
    ):
        self.descent, self.best, self.best_iteration = descent, descent.potential, 0
        self.lowest, self.waited = np.inf, 0
        self.status: Status | None = None
        self.history: History = {"iteration": [], "seconds": [], "objective": [], "val_invalid": []}
        self.history |= {f"val_{name}": [] for name in Costs.nothing(scheme, float).named()}
        self.validated, self.watch = -1, Watch()
        self._known, self._shares = log_density, x_val.weighted(equal_shares(x_val))
        self._start = time.perf_counter()
        self._costs = eqx.filter_jit(lambda p: _point_costs(p, scheme, target, x_val))
        self._log_density = None if log_density is None else eqx.filter_jit(log_density)(x_val.x)

    def validate(self) -> None:
        """Record the costs, keep the best weights, decide on the control variate and stopping."""
        config, iteration = self.descent.config, self.descent.iteration
        found = self._costs(self.descent.potential)
        terms = found.nll
        if self._log_density is not None:
            terms = terms + self._log_density
            far = float(jnp.mean(jnp.abs(terms) > 1))
            if far <= _FAR and not self.descent.control_variate:
                self.descent.control_variate, self.lowest = True, np.inf
            if self.descent.control_variate:
                terms = jnp.where(jnp.isposinf(terms), terms, excess(terms))
        sums: ValidCosts = jax.device_get(ValidCosts.of(found, self._shares))
        self.latest, invalid = sums.means(), float(sums.invalid)
        judged = dataclasses.replace(found, nll=terms)
        value = jax.device_get(ValidCosts.of(judged, self._shares)).objective(config.alpha)
        row = {"iteration": iteration, "seconds": time.perf_counter() - self._start}
        row |= {"objective": value, "val_invalid": invalid}
        row |= {f"val_{name}": float(v) for name, v in self.latest.named().items()}
        for name, v in row.items():
            self.history[name].append(v)
        self.watch.report(_PHASE, row)
        if value < self.lowest:
            self.best, self.best_iteration = self.descent.potential, iteration
            self.lowest, self.waited = value, 0
        else:
            self.waited += 1
        if iteration >= config.max_iter:
            self.status = "max_iter"
        elif self._known is None and self.waited >= _PATIENCE:
            self.status = "early_stopping"
        self.validated = iteration

    def document(self) -> dict[str, Any]:
        """All of the state that is no array, for JSON."""
        values = {name: getattr(self, name) for name in _KEPT}
        history = {name: list(column) for name, column in self.history.items()}
        values |= {"history": history, "seconds": time.perf_counter() - self._start}
        control = self.descent.control_variate
        return values | {"iteration": self.descent.iteration, "control_variate": control}

    def resume(self, document: dict[str, Any]) -> None:
        """Take the state of `document` on."""
        for name in _KEPT:
            setattr(self, name, document[name])
        self.history, self.validated = document["history"], document["iteration"]
        self.descent.control_variate = document["control_variate"]
        self._start = time.perf_counter() - document["seconds"]


_KEPT = ("best_iteration", "lowest", "waited", "status")


def _point_costs(
    potential: AbstractPotential, scheme: AbstractScheme, target: AbstractTarget, rows: Rows
) -> Costs:
    def point(row: Rows) -> Costs:
        row = row.take(None)  # one row, with its axis
        return costs(potential.given(row.condition), scheme, target, row.x)

    found = jax.lax.map(point, rows, batch_size=500)
    return jax.tree.map(jnp.ravel, found)
