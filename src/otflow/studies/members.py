"""The flows of a study: where they start, how they train together, what they cost."""

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from otflow.flow.evaluation import evaluate, objective_gap
from otflow.flow.flow import Flow
from otflow.flow.objective import nll
from otflow.parallel.batching import map_rows
from otflow.potentials import AbstractPotential, ConvexStages, GaussianBase, ResNetPotential
from otflow.schemes import Conforming
from otflow.studies.problems import AbstractProblem, DataProblem
from otflow.support.checks import check_count
from otflow.support.precision import precision
from otflow.targets import StandardNormal
from otflow.training.ensemble import (
    EnsembleConfig,
    Fresh,
    Given,
    stack,
    train_ensemble,
    unstack,
)

_MAP_ROWS = 20_000


class AbstractMembers(abc.ABC):
    """A class of potentials, whose flows go to N(0, I)."""

    @abc.abstractmethod
    def start(self, problem: AbstractProblem, alpha: float, seed: int) -> Flow:
        """The exact answer for the moments of rho0; what is trained beyond it is silent."""

    def train(
        self,
        problem: AbstractProblem,
        alpha: float,
        seeds: Sequence[int],
        config: EnsembleConfig,
        data: Float[np.ndarray, "k n d"] | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> list[Flow]:
        """One flow a seed, started and trained together at one penalty (see `train_members`)."""
        starts = [self.start(problem, alpha, seed) for seed in seeds]
        alphas = [alpha] * len(starts)
        return train_members(starts, problem, alphas, seeds, config, data, on_step=on_step)


@dataclasses.dataclass(frozen=True)
class Network(AbstractMembers):
    """A class of potentials: the Gaussian base plus a network, and its conforming steps.

    Attributes:
        width: m, units a layer.
        depth: L, residual layers; 0 is a sum of ridge functions.
        n_steps: K; 1 is Brenier's map.
    """

    width: int = 32
    depth: int = 0
    n_steps: int = 1

    def __post_init__(self) -> None:
        check_count("width", self.width)
        check_count("depth", self.depth, 0)
        check_count("n_steps", self.n_steps)

    def start(self, problem: AbstractProblem, alpha: float, seed: int) -> Flow:
        """The exact answer for the moments of rho0, with a silent network."""
        mean, cov = problem.moments()
        with precision("float64"):
            base = GaussianBase.solve(mean, cov, alpha)
            network = ResNetPotential.create(
                problem.dim, self.width, self.depth, jax.random.key(seed), output_scale=0.0
            )
            return self.flow(base + network)

    def flow(self, potential: AbstractPotential) -> Flow:
        """The flow to N(0, I) of a potential."""
        return Flow(potential, StandardNormal(potential.dim), Conforming(self.n_steps))


@dataclasses.dataclass(frozen=True)
class Stages(AbstractMembers):
    """Convex stages on the Gaussian base: every map is a bijection of the whole space (SPEC 2.2).

    Attributes:
        width: m, ridges a stage.
        n_steps: K.
        groups, group_size: log-sum-exps a stage, and terms of each.
    """

    width: int = 32
    n_steps: int = 4
    groups: int = 2
    group_size: int = 16

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_count(field.name, getattr(self, field.name))

    def start(self, problem: AbstractProblem, alpha: float, seed: int) -> Flow:
        """The exact answer for the moments of rho0, with nearly silent ridges."""
        return self.between(*problem.moments(), alpha, seed)

    def between(
        self, mean: Float[np.ndarray, " d"], cov: Float[np.ndarray, "d d"], alpha: float, seed: int
    ) -> Flow:
        """The exact answer for a normal law, with nearly silent ridges."""
        with precision("float64"):
            base = GaussianBase.solve(mean, cov, alpha)
            sizes = (self.n_steps, self.width, jax.random.key(seed), self.groups, self.group_size)
            return Flow(ConvexStages.create(base, *sizes))


def train_members(
    flows: Sequence[Flow],
    problem: AbstractProblem,
    alpha: Sequence[float],
    seeds: Sequence[int],
    config: EnsembleConfig,
    data: Float[np.ndarray, "k n d"] | None = None,
    guard: Float[np.ndarray, "g d"] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> list[Flow]:
    """Flows of one class, trained together in float64.

    Args:
        flows: where to start.
        problem: gives fresh points, and the control variate, where the density is known.
        alpha: penalty of each.
        seeds: of each one's batches.
        config: see `EnsembleConfig`.
        data: a data set each: the Monte Carlo loss of SPEC 5 is then minimised, with the plain
            nll; a problem made of rows trains on them.
        guard: see `train_ensemble`.
        on_step: called with the number of steps done.
    """
    first = flows[0]
    with precision("float64"):
        keys = jnp.stack([jax.random.key(seed) for seed in seeds])
        if data is None and isinstance(problem, DataProblem):
            data = np.broadcast_to(problem.rows, (len(flows), *problem.rows.shape))
        source: Fresh | Given
        log_density = None
        if data is not None:
            source = Given(jnp.asarray(data, jnp.float64), keys)
        else:
            assert problem.density is not None
            source = Fresh(problem.density, keys)
            log_density = problem.density.log_prob
        start = stack([flow.potential for flow in flows])
        trained = train_ensemble(
            start,
            first.scheme,
            first.target,
            np.array(alpha),
            source,
            config,
            log_density=log_density,
            guard=None if guard is None else jnp.asarray(guard, jnp.float64),
            on_step=on_step,
        )
        return [Flow(p, first.target, first.scheme) for p in unstack(trained)]


def fault(flow: Flow) -> str | None:
    """What makes a trained flow unusable, None where nothing does."""
    leaves = jax.tree.leaves(eqx.filter(flow.potential, eqx.is_inexact_array))
    if all(np.isfinite(leaf).all() for leaf in leaves):
        return None
    return "a trained parameter is not finite"


def point_objective(
    flow: Flow, x: Float[np.ndarray, "n d"], alpha: float
) -> Float[np.ndarray, " n"]:
    """transport + alpha nll of every point; +inf where the map is not invertible."""

    def values(rows: Any) -> Any:
        pushed = flow.push(rows)
        with precision("float64"):
            return pushed.transport + alpha * nll(flow.target, pushed)

    return map_rows(values, np.asarray(x, np.float64))


def measure(
    flow: Flow, problem: AbstractProblem, alpha: float, n: int, seed: int
) -> dict[str, float]:
    """Costs of a flow with their standard errors, and its distance to the exact maps.

    Where the density is known: transport, kl, objective = transport + alpha kl and invalid by
    `evaluate`; gap = objective - J*_alpha by `objective_gap`;
    limit_estimate = transport + 2 alpha kl; map_error and ot_error, the root mean
    square distances to the optimal maps of this alpha and of alpha = inf. For data, on its
    population rows: transport, nll, objective = transport + alpha nll. Transport in squared data
    units, the rest in nats; `_se` marks standard errors.
    """
    if isinstance(problem, DataProblem):
        return _measure_rows(flow, problem.population, alpha)
    exact, limit = problem.reference(alpha), problem.reference(math.inf)
    assert exact is not None
    assert limit is not None
    assert problem.density is not None
    found = evaluate(flow, problem.density, alpha, n=n, seed=seed, exact=exact)
    values: dict[str, float] = {"invalid": found.invalid, "n": found.n}
    for name in ("transport", "kl", "objective"):
        estimate = getattr(found, name)
        values[name], values[f"{name}_se"] = estimate.mean, estimate.standard_error
    values["limit_estimate"] = values["transport"] + 2 * alpha * values["kl"]
    values["limit_estimate_se"] = values["transport_se"] + 2 * alpha * values["kl_se"]
    gap = objective_gap(flow, exact, _MAP_ROWS, seed + 2)
    values["gap"], values["gap_se"] = gap.mean, gap.standard_error
    x = exact.sample(seed + 1, _MAP_ROWS)
    moved = map_rows(flow.forward, x)
    for name, reference in (("map_error", exact), ("ot_error", limit)):
        squares = ((moved - reference.map(x)) ** 2).sum(axis=1)
        values[name] = math.sqrt(squares.mean())
        spread = squares.std(ddof=1) / math.sqrt(len(x))
        values[f"{name}_se"] = spread / (2 * values[name]) if values[name] > 0 else 0.0
    return values


def _measure_rows(flow: Flow, x: Float[np.ndarray, "n d"], alpha: float) -> dict[str, float]:
    pushed = map_rows(lambda rows: _costs(flow, rows), x)
    valid = np.isfinite(pushed[:, 1])
    n = int(valid.sum())
    values: dict[str, float] = {"invalid": len(x) - n, "n": len(x)}
    columns = {"transport": pushed[:, 0], "nll": pushed[:, 1]}
    columns["objective"] = columns["transport"] + alpha * columns["nll"]
    for name, column in columns.items():
        values[name] = float(column[valid].mean())
        values[f"{name}_se"] = float(column[valid].std(ddof=1) / math.sqrt(n))
    return values


def _costs(flow: Flow, rows: Any) -> np.ndarray:
    pushed = flow.push(rows)
    with precision("float64"):
        return np.column_stack([pushed.transport, nll(flow.target, pushed)])
