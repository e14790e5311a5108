"""First-order training: blocks of compiled steps, validated, refined where time is too coarse."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from otflow.data.batches import AbstractBatches, RowBatches
from otflow.data.rows import Rows, on_host
from otflow.flow.objective import Controlled, costs, normalisers, variate_share
from otflow.parallel.devices import gathered, one_lapack_thread
from otflow.parallel.job import from_first, losses_told
from otflow.potentials.base import AbstractPotential
from otflow.schemes import RK4, AbstractScheme
from otflow.schemes.hutchinson import HutchinsonRK4
from otflow.support.precision import default_rules
from otflow.targets import AbstractTarget
from otflow.training.block import ShardedRows, StepLog, make_block, sharded_costs
from otflow.training.checkpoint import Checkpoint, Watch
from otflow.training.config import TrainingConfig
from otflow.training.run import AbstractPhase, Judged, TrainingResult, run_phase
from otflow.training.step import ValidCosts, mean_nll_error, nll_deviation, split_trainable

_MOST_STEPS = 128
_ERROR_ROWS = 256  # validation rows on which the integration error is estimated
_VARIATE_ROWS = 2048  # and those on which the share of the control variate is
_RESUME = "Start it again with its checkpoint and resume, on any number of processes."


@default_rules()
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
    density: AbstractTarget | None = None,
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
        density: rho0 where it is known, which takes noise from the gradient (`Controlled`).

    Returns:
        The best potential. An interrupted or non-finite run returns its best so far too: look at
        `status`. In a job of several processes all call this, and all get the same.

    Raises:
        ProcessLostError: another process of the job died.
    """
    with losses_told(_RESUME):
        phase = _FirstOrder(from_first(potential), scheme, target, x, x_val, config, density)
        return run_phase(phase, show_progress, watch, checkpoint)


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


@functools.lru_cache(32)
def _kept_optimiser(config: TrainingConfig) -> optax.GradientTransformation:
    """One object for equal configurations, by which `make_block` knows its programs again."""
    return make_optimiser(config, learning_rate_schedule(config))


def _like(config: TrainingConfig) -> TrainingConfig:
    """The configuration without what the optimiser does not depend on."""
    plain = TrainingConfig()
    names = ("max_iter", "learning_rate", "weight_decay", "clip_norm")
    return dataclasses.replace(plain, **{name: getattr(config, name) for name in names})


def _directions(params: Any) -> Any:
    """True where parameters are directions of ridges or terms."""

    def is_direction(path: tuple, leaf: Any) -> bool:
        return getattr(path[-1], "name", "") in ("ridges", "terms")

    return jax.tree_util.tree_map_with_path(is_direction, params)


class _FirstOrder(AbstractPhase):
    """Adam on batches, with a scheme that is refined where its error is too large."""

    name = "first-order"

    def __init__(
        self,
        potential: AbstractPotential,
        scheme: AbstractScheme,
        target: AbstractTarget,
        x: Any,
        x_val: Any,
        config: TrainingConfig,
        density: AbstractTarget | None,
    ):
        self.potential, self.scheme, self.max_iter = potential, scheme, config.max_iter
        self._target, self._config, self._density = target, config, density
        rows = None if isinstance(x, AbstractBatches) else on_host(x)
        self._batches = x if rows is None else RowBatches(rows, config.batch_size, config.seed)
        x_val = rows if x_val is None else on_host(x_val)
        self.patience = None if x_val is rows else config.patience
        self._validation = ShardedRows.of(x_val)
        self._error_rows = x_val.take(slice(_ERROR_ROWS))
        self._variate_rows = x_val.take(slice(_VARIATE_ROWS))
        self._schedule = learning_rate_schedule(config)
        self._optimiser = _kept_optimiser(_like(config))
        params, self._static = split_trainable(potential)
        self._reached = self._good = (params, self._optimiser.init(params))
        self._blocks: dict[AbstractScheme, Callable[..., Any]] = {}
        self._log: StepLog | None = None  # of the last block

    def advance(self) -> None:
        """A block of steps in one call."""
        config, scheme = self._config, self.scheme
        if scheme not in self._blocks:
            arguments = (self._target, self._optimiser, config.alpha, config.beta)
            self._blocks[scheme] = make_block(self._training_scheme(), *arguments)
        steps = min(config.validate_every, config.max_iter - self.iteration)
        batches, (params, state) = self._batches, self._reached
        with one_lapack_thread():
            params, state, self._log = self._blocks[scheme](
                params,
                self._static,
                state,
                batches.take(steps),
                self.iteration,
                batches.part,
                self._towards(),
            )
        self._reached = params, state
        self.iteration += steps

    def judge(self) -> Judged:
        """Costs on the validation rows, and the error of time integration there."""
        config = self._config
        potential = eqx.combine(self._reached[0], self._static)
        with one_lapack_thread():
            found: ValidCosts = jax.device_get(
                sharded_costs(potential, self.scheme, self._target, self._validation)
            )
            error, n_steps = self._integration_error(potential), self.scheme.n_steps
            deviation = self._trace_deviation(potential)
        costs, invalid = found.means(), float(found.invalid)
        objective = found.objective(config.alpha, config.beta)
        exact = self.scheme.refined() is None
        # +inf from an exact log-det is a point not invertible, which training can mend
        usable = bool(exact or not invalid) and (np.isfinite(objective) or objective == np.inf)
        usable &= self._log is None or bool(np.all(self._log.finite))
        within = error <= config.nll_tolerance
        if within:
            self._good = self._reached
        else:
            self._reached = self._good
        if usable and not within:
            self._refine(potential)
        row = {"learning_rate": float(self._schedule(self.iteration)), "n_steps": n_steps}
        row |= {"nll_error": error, "trace_deviation": deviation, "val_invalid": invalid}
        for name in costs.named():
            mean = np.nan if self._log is None else np.mean(getattr(self._log.costs, name))
            row[f"train_{name}"] = float(mean)
        return Judged(
            potential,
            objective,
            costs,
            row,
            usable=usable,
            eligible=within,
            counts=not config.merged_share(self.iteration),
            afresh=not within,
        )

    @property
    def state(self) -> Any:
        """Parameters and optimiser, now and when the scheme was last fine enough."""
        return self._reached, self._good

    def restore(self, state: Any, document: dict[str, Any]) -> None:
        """Go on from there: the batches until then are skipped."""
        self._reached, self._good = state
        self._batches.skip(self.iteration)
        while self.scheme.n_steps < document["n_steps"]:
            refined = self.scheme.refined()
            if refined is None:
                raise ValueError(f"a checkpoint of {document['n_steps']} steps for {self.scheme}.")
            self.scheme = refined

    def document(self) -> dict[str, Any]:
        """The steps of the scheme."""
        return {"n_steps": self.scheme.n_steps}

    def _towards(self) -> AbstractTarget:
        """The target of the next steps: its components may still be on their way."""
        share = self._config.merged_share(self.iteration)
        if share or self._density is None:
            return self._target.merged(share) if share else self._target
        potential = gathered(eqx.combine(self._reached[0], self._static))
        given = self.scheme, self._target, self._density, self._variate_rows
        return Controlled(self._density, self._target, _variate_share(potential, *given))

    def _training_scheme(self) -> AbstractScheme:
        """The scheme that the steps differentiate: with the barrier, or with an estimated trace."""
        if self._config.n_probes and isinstance(self.scheme, RK4):
            key = jax.random.key(self._config.seed)
            return HutchinsonRK4(
                key=key, n_steps=self.scheme.n_steps, n_probes=self._config.n_probes
            )
        return self.scheme.for_training()

    def _trace_deviation(self, potential: AbstractPotential) -> float:
        """Standard deviation of a point's nll by the estimated trace, nats; 0 for the exact one."""
        scheme = self._training_scheme()
        if not isinstance(scheme, HutchinsonRK4):
            return 0.0
        given = gathered(potential), self.scheme, scheme
        return float(_nll_deviation(*given, self._target, self._error_rows))

    def _refine(self, potential: AbstractPotential) -> None:
        """Double n_steps until the tolerance is met; what was best was judged too coarsely."""
        while (refined := self.scheme.refined()) is not None and refined.n_steps <= _MOST_STEPS:
            self.scheme = refined
            if self._integration_error(potential) <= self._config.nll_tolerance:
                break

    def _integration_error(self, potential: AbstractPotential) -> float:
        refined = self.scheme.refined()
        if refined is None:
            return 0.0
        given = gathered(potential), self.scheme, refined  # the start too: one program
        return float(_nll_error(*given, self._target, self._error_rows))


@eqx.filter_jit
def _variate_share(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    target: AbstractTarget,
    density: AbstractTarget,
    rows: Rows,
) -> Array:
    found = costs(potential, scheme, target, rows.x).nll
    e = normalisers(found + density.log_prob(rows.x))
    return variate_share(jnp.sum(e), jnp.sum(e**2))


_nll_error = eqx.filter_jit(mean_nll_error)
_nll_deviation = eqx.filter_jit(nll_deviation)
