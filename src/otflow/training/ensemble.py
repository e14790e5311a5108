"""Many small flows trained as one program: one shape, each with its own penalty, data and seed.

First-order steps with the barrier bring every member near its optimum, natural-gradient steps the
rest of the way. Members are independent: they are batched with `vmap` and spread over the devices
that JAX sees, so several cores of a CPU are used where the caller has set `jax_num_cpu_devices`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Key

from otflow.data.rows import Rows
from otflow.flow.wide import Wide
from otflow.potentials.base import AbstractPotential
from otflow.schemes.base import AbstractScheme
from otflow.support.checks import check_count, check_number
from otflow.support.compiling import hot_jit
from otflow.support.precision import default_rules
from otflow.targets import AbstractTarget
from otflow.training.config import TrainingConfig
from otflow.training.loop import learning_rate_schedule
from otflow.training.natural import (
    NaturalConfig,
    NaturalState,
    PointModel,
    natural_step,
    start_state,
)
from otflow.training.step import batch_gradient, guarded_update, split_trainable

_BLOCK = 25  # steps a call, between which Ctrl-C is heard


@dataclasses.dataclass(frozen=True)
class EnsembleConfig:
    """Hyperparameters of an ensemble.

    Attributes:
        first_order: Adam steps, >= 0.
        first_order_rows: points a step of those.
        learning_rate: peak of their schedule.
        natural: natural-gradient steps after them, >= 0.
        natural_rows: points a step of those; all points of a data set that is no larger.
        damping: see NaturalConfig.
        monotone: see NaturalConfig; for data sets used whole, or nearly, in every step.
    """

    first_order: int = 1000
    first_order_rows: int = 1024
    learning_rate: float = 0.01
    natural: int = 200
    natural_rows: int = 4096
    damping: float = 5e-5
    monotone: bool = False

    def __post_init__(self) -> None:
        for name in ("first_order", "natural"):
            check_count(name, getattr(self, name), 0)
        for name in ("first_order_rows", "natural_rows"):
            check_count(name, getattr(self, name))
        for name in ("learning_rate", "damping"):
            check_number(name, getattr(self, name), positive=True)


class Fresh(eqx.Module):
    """Every step draws new points of a density; `keys` is one key a member."""

    density: AbstractTarget
    keys: Key[Array, " k"]

    def draw(self, key: Array, x: None, step: Array, rows: int) -> Float[Array, "rows d"]:
        """The batch of a first-order step."""
        return self.density.sample(jax.random.fold_in(key, step), rows)

    def cover(self, key: Array, x: None, step: Array, rows: int) -> Rows:
        """The batch of a natural-gradient step, with weights: it reaches far out."""
        return Wide.of(self.density).draw(jax.random.fold_in(key, step), rows)

    @property
    def members(self) -> tuple[Any, Any]:
        """(keys, data) along the members' axis."""
        return self.keys, None


class Given(eqx.Module):
    """Every member has its own data set: random rows of it, or all of it if no more are asked."""

    data: Float[Array, "k n d"]
    keys: Key[Array, " k"]

    def draw(self, key: Array, x: Array, step: Array, rows: int) -> Float[Array, "rows d"]:
        """The batch of a step."""
        if rows >= x.shape[0]:
            return x
        return x[jax.random.randint(jax.random.fold_in(key, step), (rows,), 0, x.shape[0])]

    cover = draw  # nothing is known beyond the rows

    @property
    def members(self) -> tuple[Any, Any]:
        """(keys, data) along the members' axis."""
        return self.keys, self.data


@default_rules()
def train_ensemble(
    start: AbstractPotential,
    scheme: AbstractScheme,
    target: AbstractTarget,
    alpha: Float[np.ndarray, " k"],
    source: Fresh | Given,
    config: EnsembleConfig,
    log_density: Callable[[Array], Array] | None = None,
    guard: Float[Array, "g d"] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> AbstractPotential:
    """Minimise J_alpha of k potentials at once.

    Args:
        start: the potentials to start from, every array with a leading axis of length k
            (`stack`).
        scheme: the time discretisation of all.
        target: rho1.
        alpha: the penalty of each, shape (k,), > 0.
        source: where the points come from.
        config: hyperparameters.
        log_density: log rho0 where it is known; it is then a control variate (see
            `NaturalDescent`).
        guard: points where every member's map has to stay invertible, beside its batches, in the
            natural-gradient steps.
        on_step: called with the number of steps done after every few.

    Returns:
        The trained potentials, stacked like `start`. A member that met numbers that are not finite
        keeps its last good parameters.
    """
    params, static = split_trainable(start)
    unravel = ravel_pytree(jax.tree.map(lambda a: a[0], params))[1]
    flat = jax.vmap(lambda p: ravel_pytree(p)[0])(params)
    penalty = jnp.asarray(alpha, flat.dtype)
    problem = _Problem(scheme, target, log_density, guard, unravel, source, config)
    report = on_step or (lambda done: None)
    args = (static, *source.members, penalty)
    done = 0
    for phase in (_FirstOrder(problem), _Natural(problem)):
        state = _spread(phase.start, len(penalty))(penalty, flat)
        step, blocks = 0, {}
        while step < phase.n_steps:
            size = min(_BLOCK, phase.n_steps - step)
            if size not in blocks:
                blocks[size] = _spread(phase.block(size), len(penalty))
            state = jax.block_until_ready(blocks[size](*args, state))
            step += size
            report(done + step)
        done += step
        flat = phase.flat(state)
    return eqx.combine(jax.vmap(unravel)(flat), static)


def stack(potentials: list[AbstractPotential]) -> AbstractPotential:
    """Potentials of one shape as one, every array with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *potentials)


def unstack(stacked: AbstractPotential) -> list[AbstractPotential]:
    """The members of a stack."""
    k = jax.tree.leaves(stacked)[0].shape[0]
    return [jax.tree.map(lambda a, i=i: a[i], stacked) for i in range(k)]


@dataclasses.dataclass(frozen=True)
class _Problem:
    """What the members share."""

    scheme: AbstractScheme
    target: AbstractTarget
    log_density: Any
    guard: Any
    unravel: Any
    source: Any
    config: EnsembleConfig

    def model(self, static: Any) -> PointModel:
        def join(flat: Array) -> AbstractPotential:
            return eqx.combine(self.unravel(flat), static)

        return PointModel(join, self.scheme, self.target, self.log_density, self.guard)


class _FirstOrder:
    """Adam on the objective with the barrier, for one member."""

    def __init__(self, problem: _Problem):
        self.problem, self.n_steps = problem, problem.config.first_order
        rate = problem.config.learning_rate
        schedule = TrainingConfig(max_iter=max(self.n_steps, 1), learning_rate=rate)
        self.schedule = learning_rate_schedule(schedule)

    def optimiser(self, alpha: Array) -> optax.GradientTransformation:
        clip = optax.clip_by_global_norm(10 * jnp.maximum(1.0, alpha))  # gradients scale with it
        return optax.chain(clip, optax.adam(self.schedule))

    def start(self, alpha: Array, flat: Array) -> Any:
        return flat, self.optimiser(alpha).init(flat), jnp.zeros((), jnp.int32)

    def flat(self, state: Any) -> Array:
        return state[0]

    def block(self, size: int) -> Callable:
        problem = self.problem
        scheme = problem.scheme.for_training()

        def run(static: Any, key: Array, data: Any, alpha: Array, state: Any) -> Any:
            optimiser = self.optimiser(alpha)

            def step(state: Any, _: Any) -> tuple[Any, None]:
                flat, inner, k = state
                x = problem.source.draw(key, data, k, problem.config.first_order_rows)
                params = problem.unravel(flat)
                means, gradient = batch_gradient(
                    scheme, problem.target, alpha, 0.0, params, static, x
                )
                slope = ravel_pytree(gradient)[0]
                new, _ = guarded_update(optimiser, (flat, inner), means, slope)
                return (*new, k + 1), None

            return jax.lax.scan(step, state, length=size)[0]

        return run


class _Natural:
    """Natural-gradient steps, for one member."""

    def __init__(self, problem: _Problem):
        self.problem, self.n_steps = problem, problem.config.natural
        config = problem.config
        self.config = NaturalConfig(
            max_iter=max(self.n_steps, 1),
            batch_size=config.natural_rows,
            damping=config.damping,
            monotone=config.monotone,
            step=1.0 if config.monotone else 0.5,  # what goes too far is taken back
        )

    def start(self, alpha: Array, flat: Array) -> NaturalState:
        return start_state(flat)

    def flat(self, state: NaturalState) -> Array:
        return state.flat

    def block(self, size: int) -> Callable:
        problem, rows = self.problem, self.config.batch_size

        def run(static: Any, key: Array, data: Any, alpha: Array, state: NaturalState) -> Any:
            model = problem.model(static)

            def step(state: NaturalState, _: None) -> tuple[NaturalState, None]:
                # numbers beyond any first-order step, so that no batch comes twice
                number = problem.config.first_order + state.iteration
                x = problem.source.cover(key, data, number, rows)
                return natural_step(model, self.config, alpha, state, x), None

            return jax.lax.scan(step, state, length=size)[0]

        return run


def _spread(function: Callable, k: int) -> Callable:
    """The function of one member for k: batched, and split over the devices where that is even."""
    batched = jax.vmap(function)
    devices = jax.local_devices()
    if len(devices) > 1 and k % len(devices) == 0:
        spec = PartitionSpec("member")
        mesh = Mesh(np.array(devices), ("member",))
        batched = jax.shard_map(batched, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    return hot_jit(batched)
