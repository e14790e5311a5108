"""The training loop: blocks of compiled steps, validation, early stopping, best weights."""

import dataclasses
import time
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import Array, Float

from otflow.data.batches import AbstractBatches, RowBatches
from otflow.data.rows import Rows, on_host
from otflow.flow.objective import Costs
from otflow.parallel.devices import gathered, one_lapack_thread
from otflow.parallel.job import check_same, from_first, is_first, losses_told
from otflow.potentials.base import AbstractPotential
from otflow.schemes import RK4, AbstractScheme
from otflow.schemes.hutchinson import HutchinsonRK4
from otflow.targets import AbstractTarget
from otflow.training.block import ShardedRows, make_block, sharded_costs
from otflow.training.checkpoint import Checkpoint, Watch
from otflow.training.config import TrainingConfig
from otflow.training.progress import TrainingProgress
from otflow.training.step import ValidCosts, mean_nll_error, nll_deviation, split_trainable

Status = Literal["max_iter", "early_stopping", "interrupted", "non_finite"]
History = dict[str, list[float]]
_PHASE = "first-order"
_MOST_STEPS = 128
_ERROR_ROWS = 256  # validation rows on which the integration error is estimated
_RESUME = "Start it again with its checkpoint and resume, on any number of processes."


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """The potential with the lowest validation objective, and how the run went.

    `history` has one entry a validation: iteration, seconds, learning_rate, the mean costs of the
    batches since the last one (train_transport, ...), the costs on the validation rows at which the
    map is invertible (val_transport, ...), the share of the others (val_invalid), objective, the
    value of transport + alpha nll + beta regulariser there, where each of the others counts 100
    nats more than the mean of the rest, n_steps, nll_error, the mean error of the nll from time
    integration by step doubling (nats; 0 for a scheme without one), and trace_deviation, the
    standard deviation of a point's nll by Hutchinson's trace (0 where the trace is exact). `scheme`
    is the one trained with, perhaps refined on the way.
    """

    potential: AbstractPotential
    scheme: AbstractScheme
    history: History
    status: Status
    best_iteration: int


def train(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    target: AbstractTarget,
    x: Float[Array, "n d"] | Rows | AbstractBatches,
    x_val: Float[Array, "k d"] | Rows | None,
    config: TrainingConfig,
    show_progress: bool = True,
    watch: Watch = Watch(),
    checkpoint: Checkpoint | None = None,
) -> TrainingResult:
    """Minimise transport + alpha nll + beta regulariser over the potential's trainable arrays.

    Args:
        potential: where to start.
        scheme: the time discretisation. One with an integration error (RK4) is refined, and
            training goes back to the last weights within tolerance, where step doubling on
            validation rows finds more than `config.nll_tolerance`.
        target: rho1.
        x: training rows, in the precision to train in; with weights or a condition, `Rows`; or
            batches that come from elsewhere.
        x_val: rows that decide which weights are best and when to stop; None uses x, which are
            then rows, and never stops early.
        config: hyperparameters.
        show_progress: a bar on a terminal.
        watch: whose callback gets every row of the history.
        checkpoint: where the run's state is kept, and taken from if it is there.

    Returns:
        The best potential. An interrupted or non-finite run returns its best so far too: look at
        `status`. In a job of several processes all call this, and all get the same.

    Raises:
        ProcessLostError: another process of the job died.
    """
    with losses_told(_RESUME):
        potential = from_first(potential)
        return _train(potential, scheme, target, x, x_val, config, show_progress, watch, checkpoint)


def _train(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    target: AbstractTarget,
    x: Any,
    x_val: Any,
    config: TrainingConfig,
    show_progress: bool,
    watch: Watch,
    checkpoint: Checkpoint | None,
) -> TrainingResult:
    if isinstance(x, AbstractBatches):
        batches, rows = x, None
    else:
        rows = on_host(x)
        batches = RowBatches(rows, config.batch_size, config.seed)
    x_val = rows if x_val is None else on_host(x_val)
    schedule = learning_rate_schedule(config)
    optimiser = make_optimiser(config, schedule)
    params, static = split_trainable(potential)
    run = _Run(potential, config, scheme, target, x_val, schedule)
    run.stops_early = x_val is not rows
    state = optimiser.init(params)
    run.watch = watch
    good, blocks = (params, state), {}
    saved = checkpoint and checkpoint.restore(_PHASE, (params, state, good, potential))
    if saved:
        (params, state, good, run.best), document = saved
        run.resume(document)
        batches.skip(run.iteration)
    check_same("checkpoint: expected the same for every process", f"{run.iteration}{run.status}")
    if not saved:
        run.validate(0, potential, None)
    show_progress = show_progress and is_first()
    try:
        with TrainingProgress(config.max_iter, show_progress) as bar, one_lapack_thread():
            while run.status is None:
                if run.scheme not in blocks:
                    arguments = (target, optimiser, config.alpha, config.beta)
                    blocks[run.scheme] = make_block(run.training_scheme(), *arguments)
                steps = min(config.validate_every, config.max_iter - run.iteration)
                first, towards = run.iteration, run.towards()
                params, state, log = blocks[run.scheme](
                    params, static, state, batches.take(steps), first, batches.part, towards
                )
                finite = bool(np.all(log.finite))
                run.validate(steps, eqx.combine(params, static), log.costs, finite)
                if run.within_tolerance:
                    good = (params, state)
                else:
                    params, state = good
                bar.update(run.iteration, run.latest)
                if checkpoint is not None:
                    tree = (params, state, good, run.best)
                    checkpoint.keep(_PHASE, tree, run.document(), run.status is not None)
    except KeyboardInterrupt:
        run.status = "interrupted"
        if checkpoint is not None:
            checkpoint.flush()
    except Exception:  # a process was lost, perhaps: what was kept last is there to resume
        if checkpoint is not None:
            checkpoint.flush()
        raise
    assert run.status is not None
    best = gathered(run.best)
    return TrainingResult(best, run.scheme, run.history, run.status, run.best_iteration)


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


def make_optimiser(
    config: TrainingConfig, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Adam behind a clipped gradient, with the decay of directions where there is one."""
    clip = optax.clip_by_global_norm(config.clip_norm)
    if not config.weight_decay:
        return optax.chain(clip, optax.adam(schedule))
    decay = optax.add_decayed_weights(config.weight_decay, _directions)
    rate = optax.scale_by_learning_rate(schedule)
    return optax.chain(clip, optax.scale_by_adam(), decay, rate)


def _directions(params: Any) -> Any:
    """True where parameters are directions of ridges or terms."""

    def is_direction(path: tuple, leaf: Any) -> bool:
        return getattr(path[-1], "name", "") in ("ridges", "terms")

    return jax.tree_util.tree_map_with_path(is_direction, params)


class _Run:
    """The state of one run between blocks: history, best weights and the reason to stop."""

    def __init__(
        self,
        potential: AbstractPotential,
        config: TrainingConfig,
        scheme: AbstractScheme,
        target: AbstractTarget,
        x_val: Rows,
        schedule: optax.Schedule,
    ):
        self.best, self.best_iteration, self.best_objective = potential, 0, np.inf
        self.config, self.scheme, self.target = config, scheme, target
        self.schedule, self._validation = schedule, ShardedRows.of(x_val)
        self._error_rows = x_val.take(slice(_ERROR_ROWS))
        self.iteration, self.waited = 0, 0
        self.status: Status | None = None
        self.stops_early = self.within_tolerance = True
        self.watch = Watch()
        names = ["iteration", "seconds", "learning_rate", "n_steps", "nll_error"]
        names += ["trace_deviation", "objective", "val_invalid"]
        costs = Costs.nothing(scheme, float).named()
        names += [f"{part}_{name}" for part in ("train", "val") for name in costs]
        self.history: History = {name: [] for name in names}
        self._start = time.perf_counter()

    def validate(
        self,
        steps: int,
        potential: AbstractPotential,
        train_costs: Costs | None,
        finite: bool = True,
    ) -> None:
        """Record the costs after a block, keep the best weights, decide whether to stop."""
        self.iteration += steps
        found: ValidCosts = jax.device_get(
            sharded_costs(potential, self.scheme, self.target, self._validation)
        )
        self.latest, invalid = found.means(), float(found.invalid)
        objective = found.objective(self.config.alpha, self.config.beta)
        error = self._integration_error(potential)
        self._record(potential, train_costs, objective, error, invalid)
        self.within_tolerance = error <= self.config.nll_tolerance
        if not (finite and self._usable(objective, invalid)):
            self.status = "non_finite"
            return
        if not self.within_tolerance:
            self._refine(potential)
        elif objective < self.best_objective:
            self.best, self.best_iteration = potential, self.iteration
            self.best_objective, self.waited = objective, 0
        elif not self.config.merged_share(self.iteration):
            self.waited += 1
        if self.iteration >= self.config.max_iter:
            self.status = "max_iter"
        elif self.stops_early and self.waited >= self.config.patience:
            self.status = "early_stopping"

    def towards(self) -> AbstractTarget:
        """The target of the next steps: its components may still be on their way."""
        share = self.config.merged_share(self.iteration)
        return self.target.merged(share) if share else self.target

    def training_scheme(self) -> AbstractScheme:
        """The scheme that the steps differentiate: with the barrier, or with an estimated trace."""
        if self.config.n_probes and isinstance(self.scheme, RK4):
            key = jax.random.key(self.config.seed)
            return HutchinsonRK4(
                key=key, n_steps=self.scheme.n_steps, n_probes=self.config.n_probes
            )
        return self.scheme.for_training()

    def _trace_deviation(self, potential: AbstractPotential) -> float:
        """Standard deviation of a point's nll by the estimated trace, nats; 0 for the exact one."""
        scheme = self.training_scheme()
        if not isinstance(scheme, HutchinsonRK4):
            return 0.0
        given = gathered(potential), self.scheme, scheme
        return float(_nll_deviation(*given, self.target, self._error_rows))

    def _refine(self, potential: AbstractPotential) -> None:
        """Double n_steps until the tolerance is met; what was best was judged too coarsely."""
        self.best_objective, self.waited = np.inf, 0
        while (refined := self.scheme.refined()) is not None and refined.n_steps <= _MOST_STEPS:
            self.scheme = refined
            if self._integration_error(potential) <= self.config.nll_tolerance:
                break

    def _usable(self, objective: float, invalid: float) -> bool:
        """Finite; +inf from an exact log-det is a point not invertible, which training can mend."""
        exact = self.scheme.refined() is None
        return bool(exact or not invalid) and (np.isfinite(objective) or objective == np.inf)

    def _integration_error(self, potential: AbstractPotential) -> float:
        refined = self.scheme.refined()
        if refined is None:
            return 0.0
        given = gathered(potential), self.scheme, refined  # the start too: one program
        return float(_nll_error(*given, self.target, self._error_rows))

    def _record(
        self,
        potential: AbstractPotential,
        train_costs: Costs | None,
        objective: float,
        error: float,
        invalid: float,
    ) -> None:
        row: dict[str, Any] = {
            "iteration": self.iteration,
            "seconds": time.perf_counter() - self._start,
            "learning_rate": float(self.schedule(self.iteration)),
            "n_steps": self.scheme.n_steps,
            "nll_error": error,
            "trace_deviation": self._trace_deviation(potential),
            "objective": objective,
            "val_invalid": invalid,
        }
        for name, cost in self.latest.named().items():
            row[f"val_{name}"] = float(cost)
            values = np.nan if train_costs is None else getattr(train_costs, name)
            row[f"train_{name}"] = float(np.mean(values))
        for name, value in row.items():
            self.history[name].append(value)
        self.watch.report(_PHASE, row)

    def document(self) -> dict[str, Any]:
        """All of the state that is no array, for JSON."""
        values = {name: getattr(self, name) for name in _KEPT}
        history = {name: list(column) for name, column in self.history.items()}
        seconds = time.perf_counter() - self._start
        return values | {"history": history, "seconds": seconds, "n_steps": self.scheme.n_steps}

    def resume(self, document: dict[str, Any]) -> None:
        """Take the state of `document` on."""
        for name in _KEPT:
            setattr(self, name, document[name])
        self.history = document["history"]
        self._start = time.perf_counter() - document["seconds"]
        while self.scheme.n_steps < document["n_steps"]:
            refined = self.scheme.refined()
            if refined is None:
                raise ValueError(f"a checkpoint of {document['n_steps']} steps for {self.scheme}.")
            self.scheme = refined


_KEPT = ("iteration", "best_iteration", "best_objective", "waited", "status")
_nll_error = eqx.filter_jit(mean_nll_error)
_nll_deviation = eqx.filter_jit(nll_deviation)
