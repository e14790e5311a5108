"""Training a flow that moves mass and lets it grow: from a discrete plan, then by its objective."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from otflow.flow.growing import GrowingFlow
from otflow.potentials.base import AbstractPotential
from otflow.reference.unbalanced import wfr_discrete
from otflow.schemes.growing import Growing
from otflow.support.checks import check_count
from otflow.support.precision import cast, dtype_of, precision
from otflow.training.checkpoint import Checkpoint, Watch
from otflow.training.config import TrainingConfig
from otflow.training.loop import train
from otflow.training.plan import if_finite, regress
from otflow.training.run import History, Status
from otflow.training.step import split_trainable

_DRAWS, _VALIDATION = 2**15, 2**11  # from the start
_POINTS, _PLANS = 200, 4  # of the discrete plans
_LEAST_GROWTH = -6.0  # log-growth of a row that the plan lets die
_REACH = 3.0  # largest delta of a plan, in diameters of its points


@dataclasses.dataclass(frozen=True)
class GrowthConfig(TrainingConfig):
    """Hyperparameters of a run: those of `TrainingConfig`, and of the steps before.

    Attributes:
        alpha: weight of the miss at the end.
        beta: weight of the straightness, which is 0 on geodesics of the cone.
        plan_iter: steps of Adam on a discrete plan, >= 0.

    Raises:
        ValueError, TypeError: a field is out of its range.
    """

    alpha: float = 100.0
    beta: float = 100.0
    max_iter: int = 1500
    batch_size: int = 512
    learning_rate: float = 0.02
    plan_iter: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("plan_iter", self.plan_iter, 0)


@dataclasses.dataclass(frozen=True)
class GrowthResult:
    """The trained flow and how the run went: of `TrainingResult`, with the miss as the nll."""

    flow: GrowingFlow
    history: History
    status: Status


def train_growth(
    flow: GrowingFlow,
    config: GrowthConfig,
    verbose: bool = False,
    watch: Watch = Watch(),
    checkpoint: Checkpoint | None = None,
) -> GrowthResult:
    """Minimise transport + alpha miss + beta straightness over draws from the flow's start.

    Straight lines of the cone between the partners of an exact discrete plan are regressed first:
    gradients of log densities do not carry mass over a gap.

    Args:
        flow: where to start.
        config: hyperparameters.
        verbose, watch, checkpoint: as of `train`.
    """
    with precision(dtype_of(flow.potential)):
        potential = _from_plan(flow, config) if config.plan_iter else flow.potential
        keys = jax.random.split(jax.random.key(config.seed))
        x, held = flow.start.sample(keys[0], _DRAWS), flow.start.sample(keys[1], _VALIDATION)
        beside = (config, verbose, watch, checkpoint)
        found = train(potential, flow.scheme, flow.target, x, held, *beside)
    trained = eqx.tree_at(lambda f: f.potential, flow, found.potential)
    return GrowthResult(trained, found.history, found.status)


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


def _from_plan(flow: GrowingFlow, config: GrowthConfig) -> AbstractPotential:
    """Stages that follow the plan's lines."""
    params, static = split_trainable(flow.potential)
    x, y, log_growth = plan_pairs(flow, config.seed)
    K = flow.scheme.n_steps
    lines = [cone_line(x, y, log_growth, flow.scheme.delta, k / K) for k in range(K + 1)]
    points, masses = (np.stack(part, axis=1) for part in zip(*lines, strict=True))
    data = cast((points, masses), dtype_of(params))
    rng = np.random.default_rng([config.seed, 3])
    order = rng.integers(len(x), size=(config.plan_iter, min(config.batch_size, len(x))))
    found = regress(params, static, eqx.Partial(_missed, flow.scheme), data, order)
    told = "the plan's regression became non-finite, training starts at rest"
    return eqx.combine(if_finite(found, params, told), static)


def _missed(scheme: Growing, potential: Any, batch: tuple[Array, Array]) -> Array:
    """How far stages miss the lines of a batch, squared, and delta^2 that of their log-growth."""
    points, masses = batch
    K, delta = scheme.n_steps, scheme.delta

    def miss(k: int) -> Array:
        end, change = scheme.advance(potential, points[:, k], k)
        off = change - (masses[:, k + 1] - masses[:, k])
        square = jnp.sum((end - points[:, k + 1]) ** 2, axis=1)
        return jnp.mean(square + delta**2 * off**2)

    return K * jnp.sum(jnp.stack([miss(k) for k in range(K)]))
