"""The training loop: blocks of compiled steps, validation, early stopping, best weights."""

import dataclasses
import time
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import Array, Float

from otflow.objective import Costs
from otflow.potentials.base import AbstractPotential
from otflow.schemes.base import AbstractScheme
from otflow.targets import AbstractTarget
from otflow.training.batches import BatchStream
from otflow.training.config import TrainingConfig
from otflow.training.progress import TrainingProgress
from otflow.training.step import make_block, mean_costs, split_trainable

Status = Literal["max_iter", "early_stopping", "interrupted", "non_finite"]
History = dict[str, list[float]]
_COSTS = ("transport", "nll", "hjb")


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """The potential with the lowest validation objective, and how the run went.

    `history` has one entry a validation: iteration, seconds, learning_rate, the mean costs of the
    batches since the last one (train_transport, ...), the costs on the validation rows
    (val_transport, ...) and objective, the validation value of transport + alpha nll + beta hjb.
    """

    potential: AbstractPotential
    history: History
    status: Status
    best_iteration: int


def train(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    target: AbstractTarget,
    x: Float[Array, "n d"],
    x_val: Float[Array, "k d"] | None,
    config: TrainingConfig,
    show_progress: bool = True,
) -> TrainingResult:
    """Minimise transport + alpha nll + beta hjb over the potential's trainable arrays.

    Args:
        potential: where to start.
        scheme: the time discretisation.
        target: rho1.
        x: training rows, in the precision to train in.
        x_val: rows that decide which weights are best and when to stop; None uses x and never
            stops early.
        config: hyperparameters.
        show_progress: a bar on a terminal.

    Returns:
        The best potential. An interrupted or non-finite run returns its best so far too: look at
        `status`.
    """
    schedule = learning_rate_schedule(config)
    optimiser = optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(schedule))
    block = make_block(scheme, target, optimiser, config.alpha, config.beta)
    params, static = split_trainable(potential)
    run = _Run(potential, config, scheme, target, x if x_val is None else x_val, schedule)
    run.stops_early = x_val is not None
    state = optimiser.init(params)
    stream = BatchStream(x.shape[0], config.batch_size, config.seed)
    run.validate(0, potential, None)
    try:
        with TrainingProgress(config.max_iter, show_progress) as bar:
            while run.status is None:
                steps = min(config.validate_every, config.max_iter - run.iteration)
                params, state, log = block(params, static, state, x, stream.take(steps))
                finite = bool(np.all(log.finite))
                run.validate(steps, eqx.combine(params, static), log.costs, finite)
                bar.update(run.iteration, run.latest)
    except KeyboardInterrupt:
        run.status = "interrupted"
    assert run.status is not None
    return TrainingResult(run.best, run.history, run.status, run.best_iteration)


def learning_rate_schedule(config: TrainingConfig) -> optax.Schedule:
    """Linear warm-up over 2 % of the steps (at most 100), then a cosine down to 1 %."""
    warmup = min(100, max(1, config.max_iter // 50))
    return optax.warmup_cosine_decay_schedule(
        init_value=0.1 * config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(config.max_iter, warmup + 1),
        end_value=0.01 * config.learning_rate,
    )


class _Run:
    """The state of one run between blocks: history, best weights and the reason to stop."""

    def __init__(
        self,
        potential: AbstractPotential,
        config: TrainingConfig,
        scheme: AbstractScheme,
        target: AbstractTarget,
        x_val: Array,
        schedule: optax.Schedule,
    ):
        self.best, self.best_iteration, self.best_objective = potential, 0, np.inf
        self.config, self.schedule = config, schedule
        self.iteration, self.waited = 0, 0
        self.status: Status | None = None
        self.stops_early = True
        self.history: History = {"iteration": [], "seconds": [], "learning_rate": []}
        self.history |= {f"{part}_{name}": [] for part in ("train", "val") for name in _COSTS}
        self.history["objective"] = []
        self._start = time.perf_counter()
        self._evaluate = lambda potential: _compiled_costs(potential, scheme, target, x_val)

    def validate(
        self,
        steps: int,
        potential: AbstractPotential,
        train_costs: Costs | None,
        finite: bool = True,
    ) -> None:
        """Record the costs after a block, keep the best weights, decide whether to stop."""
        self.iteration += steps
        self.latest: Costs = jax.device_get(self._evaluate(potential))
        objective = float(self.latest.objective(self.config.alpha, self.config.beta))
        self._record(train_costs, objective)
        if not (finite and np.isfinite(objective)):
            self.status = "non_finite"
            return
        if objective < self.best_objective:
            self.best, self.best_iteration = potential, self.iteration
            self.best_objective, self.waited = objective, 0
        else:
            self.waited += 1
        if self.iteration >= self.config.max_iter:
            self.status = "max_iter"
        elif self.stops_early and self.waited >= self.config.patience:
            self.status = "early_stopping"

    def _record(self, train_costs: Costs | None, objective: float) -> None:
        row: dict[str, Any] = {
            "iteration": self.iteration,
            "seconds": time.perf_counter() - self._start,
            "learning_rate": float(self.schedule(self.iteration)),
            "objective": objective,
        }
        for name in _COSTS:
            row[f"val_{name}"] = float(getattr(self.latest, name))
            values = np.nan if train_costs is None else getattr(train_costs, name)
            row[f"train_{name}"] = float(np.mean(values))
        for name, value in row.items():
            self.history[name].append(value)


_compiled_costs = eqx.filter_jit(mean_costs)
