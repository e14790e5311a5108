"""Training a flow that moves mass and lets it grow: from a discrete plan, then by its objective."""

import dataclasses
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from otflow.flow.growing import GrowingFlow, growth_costs
from otflow.parallel.devices import one_lapack_thread
from otflow.potentials.base import AbstractPotential
from otflow.reference.unbalanced import wfr_discrete
from otflow.support.checks import check_count, check_number
from otflow.support.compiling import hot_jit
from otflow.support.precision import cast, dtype_of, precision
from otflow.training.config import TrainingConfig
from otflow.training.loop import learning_rate_schedule, make_optimiser
from otflow.training.progress import TrainingProgress
from otflow.training.step import split_trainable

_BLOCK = 50  # steps in one call
_POOL = 2**15  # draws from the start, of which batches are taken
_TAIL = 3.0  # of the miss, beyond which it goes on straight
_POINTS, _PLANS = 200, 4  # of the discrete plans
_LEAST_GROWTH = -6.0  # log-growth of a row that the plan lets die
_PLAN_RATE = 0.02
_REACH = 3.0  # largest delta of a plan, in diameters of its points


@dataclasses.dataclass(frozen=True)
class GrowthConfig:
    """Hyperparameters of a run.

    Attributes:
        alpha: weight of the miss at the end, > 0.
        beta: weight, >= 0, of the straightness, which is 0 on geodesics of the cone.
        max_iter: steps of Adam on the objective, >= 0.
        plan_iter: steps of Adam before them on a discrete plan, >= 0.
        batch_size: draws a step.
        learning_rate: peak of the schedule, > 0.
        seed: of draws and plans.

    Raises:
        ValueError, TypeError: a field is out of its range.
    """

    alpha: float = 100.0
    beta: float = 100.0
    max_iter: int = 1500
    plan_iter: int = 500
    batch_size: int = 512
    learning_rate: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("alpha", "learning_rate"):
            check_number(name, getattr(self, name), positive=True)
        check_number("beta", self.beta, positive=False)
        for name in ("max_iter", "plan_iter", "seed"):
            check_count(name, getattr(self, name), 0)
        check_count("batch_size", self.batch_size)


@dataclasses.dataclass(frozen=True)
class GrowthResult:
    """The trained flow; `history` has the mean objective, transport, miss and mass, all for a unit
    of mass at the start, of every 50 steps. `finite` is False where training met other numbers and
    stopped: the flow is then the last good one."""

    flow: GrowingFlow
    history: dict[str, list[float]]
    finite: bool


def train_growth(flow: GrowingFlow, config: GrowthConfig, verbose: bool = False) -> GrowthResult:
    """Minimise transport + alpha miss + beta straightness over draws from the flow's start.

    Start and end are known densities, so that draws do not run out. Straight lines of the cone
    between the partners of an exact discrete plan are regressed first: gradients of log densities
    do not carry mass over a gap.

    Args:
        flow: where to start.
        config: hyperparameters.
        verbose: a progress bar, on a terminal.
    """
    with precision(dtype_of(flow.potential)):
        params, static = split_trainable(flow.potential)
        if config.plan_iter:
            found = _from_plan(params, static, flow, config)
            if _finite(found):
                params = found
            else:
                told = "the plan's regression became non-finite, training starts at rest"
                warnings.warn(f"plan_iter: {told}; try dtype='float64'.", UserWarning, stacklevel=2)
        plain = dataclasses.replace(config, seed=0)  # one program for all seeds
        keys = jax.random.split(jax.random.key(config.seed))
        pool = flow.start.sample(keys[0], _POOL)
        carry, history, finite = (params, _optimiser(plain).init(params)), _History(), True
        with TrainingProgress(config.max_iter, verbose) as bar, one_lapack_thread():
            for done in range(0, config.max_iter, _BLOCK):
                key = jax.random.fold_in(keys[1], done)
                size = min(_BLOCK, config.max_iter - done)
                carry, means = _block(carry, static, flow, pool, key, plain, size)
                if not _finite((carry, means)):
                    finite = False
                    break
                params = carry[0]
                history.add(done + size, means)
                bar.advance_to(done + size)
        potential = eqx.combine(params, static)
    return GrowthResult(_with(flow, potential), history.columns, finite)


class _History:
    """Means of the blocks, by name."""

    def __init__(self) -> None:
        self.columns: dict[str, list[float]] = {}

    def add(self, iteration: int, means: dict[str, Array]) -> None:
        row = {"iteration": iteration} | {name: float(value) for name, value in means.items()}
        for name, value in row.items():
            self.columns.setdefault(name, []).append(value)


def _with(flow: GrowingFlow, potential: AbstractPotential) -> GrowingFlow:
    return eqx.tree_at(lambda f: f.potential, flow, potential)


def _optimiser(config: GrowthConfig) -> optax.GradientTransformation:
    steps = max(config.max_iter, 1)
    plain = TrainingConfig(max_iter=steps, learning_rate=config.learning_rate)
    return make_optimiser(plain, learning_rate_schedule(plain))


def _finite(tree: Any) -> bool:
    leaves = [a for a in jax.tree.leaves(tree) if eqx.is_inexact_array(a)]
    return all(bool(jnp.isfinite(a).all()) for a in leaves)


@hot_jit
def _block(
    carry: Any,
    static: Any,
    flow: GrowingFlow,
    pool: Array,
    key: Array,
    config: GrowthConfig,
    steps: int,
) -> tuple[Any, dict[str, Array]]:
    """So many steps, and the means of their costs."""
    optimiser = _optimiser(config)

    def loss(params: Any, x: Array) -> tuple[Array, dict[str, Array]]:
        found = growth_costs(_with(flow, eqx.combine(params, static)), x)
        transport, miss = jnp.mean(found.transport), jnp.mean(found.miss(_TAIL))
        told = {"objective": transport + config.alpha * miss, "transport": transport, "miss": miss}
        told["mass"] = jnp.mean(jnp.exp(found.log_mass))
        return told["objective"] + config.beta * jnp.mean(found.straightness), told

    def step(carry: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], dict[str, Array]]:
        params, state = carry
        x = pool[jax.random.randint(key, (config.batch_size,), 0, len(pool))]
        gradient, told = jax.grad(loss, has_aux=True)(params, x)
        updates, state = optimiser.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), told

    carry, told = jax.lax.scan(step, carry, jax.random.split(key, steps))
    return carry, jax.tree.map(jnp.mean, told)


def plan_pairs(
    flow: GrowingFlow, seed: int
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
    """Draws from the start, a partner of each in an exact discrete plan, and its log-growth.

    A draw without a partner within pi delta stays, and dies but for exp(-6) of its mass.
    """
    rng = np.random.default_rng([seed, 2])
    starts, ends, growth = [], [], []
    for key in jax.random.split(jax.random.key(seed + 1), _PLANS):
        keys = jax.random.split(key)
        x, y = (
            np.asarray(law.sample(k, _POINTS), np.float64)
            for law, k in zip((flow.start, flow.end), keys, strict=True)
        )
        masses = (np.full(_POINTS, mass / _POINTS) for mass in (flow.mass_x, flow.mass_y))
        reach = _REACH * float(np.linalg.norm(np.ptp(np.concatenate([x, y]), axis=0)))
        delta = min(flow.scheme.delta, reach)  # beyond, plans are those of plain transport
        plan = wfr_discrete(x, y, *masses, delta=delta, tolerance=1e-7)
        arrives = np.cumsum(plan.plan / np.where(plan.share_y > 0, plan.share_y, 1.0), axis=1)
        lives = arrives[:, -1] > np.exp(_LEAST_GROWTH) * flow.mass_x / _POINTS
        level = rng.uniform(size=_POINTS) * arrives[:, -1]
        partner = np.minimum((arrives <= level[:, None]).sum(axis=1), _POINTS - 1)
        with np.errstate(divide="ignore"):
            log_growth = np.log(plan.share_x) - np.log(plan.share_y[partner])
        starts.append(x)
        ends.append(np.where(lives[:, None], y[partner], x))
        growth.append(np.where(lives, np.maximum(log_growth, _LEAST_GROWTH), _LEAST_GROWTH))
    return np.concatenate(starts), np.concatenate(ends), np.concatenate(growth)


def cone_line(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "n d"],
    log_growth: Float[np.ndarray, " n"],
    delta: float,
    time: float,
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
    """Where the geodesics of the cone from (x, mass 1) to (y, mass m) are, and their log-mass."""
    angle = np.linalg.norm(y - x, axis=1) / (2 * delta)
    radius = np.exp(0.5 * log_growth)
    a, b = 1 - time + time * radius * np.cos(angle), time * radius * np.sin(angle)
    share = np.where(
        angle > 1e-9, np.arctan2(b, a) / np.maximum(angle, 1e-9), b + time * radius / a
    )
    return x + share[:, None] * (y - x), np.log(a**2 + b**2)


def _from_plan(params: Any, static: Any, flow: GrowingFlow, config: GrowthConfig) -> Any:
    x, y, log_growth = plan_pairs(flow, config.seed)
    K = flow.scheme.n_steps
    lines = [cone_line(x, y, log_growth, flow.scheme.delta, k / K) for k in range(K + 1)]
    points, masses = (np.stack(parts) for parts in zip(*lines, strict=True))
    points, masses = cast((points, masses), dtype_of(params))
    rng = np.random.default_rng([config.seed, 3])
    order = rng.integers(len(x), size=(config.plan_iter, min(config.batch_size, len(x))))
    return _regress(params, static, flow, points, masses, jnp.asarray(order))


@hot_jit
def _regress(
    params: Any, static: Any, flow: GrowingFlow, points: Array, masses: Array, order: Array
) -> Any:
    """Adam on the squared distance of every stage's end, and delta^2 that of its log-growth."""
    config = TrainingConfig(max_iter=len(order), learning_rate=_PLAN_RATE)
    optimiser = make_optimiser(config, learning_rate_schedule(config))
    K, delta = flow.scheme.n_steps, flow.scheme.delta

    def loss(params: Any, rows: Array) -> Array:
        potential = eqx.combine(params, static)

        def miss(k: int) -> Array:
            end, change = flow.scheme.advance(potential, points[k, rows], k)
            off = change - (masses[k + 1, rows] - masses[k, rows])
            square = jnp.sum((end - points[k + 1, rows]) ** 2, axis=1)
            return jnp.mean(square + delta**2 * off**2)

        return K * jnp.sum(jnp.stack([miss(k) for k in range(K)]))

    def step(carry: tuple[Any, Any], rows: Array) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        updates, state = optimiser.update(jax.grad(loss)(params, rows), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimiser.init(params)), order)[0][0]
