"""The sample number: losses J_N, their minimisers theta_N, and the penalty that N supports."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from otflow.studies.alpha import check_increasing, check_seeds, exact_values
from otflow.studies.information import effective_parameters
from otflow.studies.members import AbstractMembers, Stages, point_objective, train_members
from otflow.studies.problems import AbstractProblem, DataProblem
from otflow.studies.runner import AbstractStudy, Outcome, Plan, Saved, Unit, study_runner
from otflow.support.checks import check_count, check_number
from otflow.training.ensemble import EnsembleConfig

SIZES = (250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000)
_POPULATION_SEED, _OPTIMUM_SEED, _GUARD_SEED = 30_011, 30_013, 30_017
_GUARD_ROWS, _GUARD_SCALE = 8192, 1.4
_MOST_GROUPS = 1000
_INFINITE = np.errstate(invalid="ignore")  # J of a flow that is not invertible: inf - inf is NaN


@dataclasses.dataclass(frozen=True)
class SampleStudy(AbstractStudy):
    """Minimisers of the loss over N samples, for several N and replicates.

    The class optimum is computed first; every theta_N starts from it and minimises its own J_N with
    all samples in every step, over maps that stay invertible on a fixed set of guard points.

    Attributes:
        problem: an exact problem; or data, whose population rows then define the class optimum.
        sizes: N, increasing.
        replicates: seeds of the sample sets.
        alpha: the penalty.
        network: the class; small, so that the limit regime is reached, and of bijections, so that
            J is finite for every theta_N.
        starts: random networks from which the class optimum is sought; the best one is kept.
        optimum: their training on fresh points.
        refine: steps on `optimum_rows` fixed points after it.
        steps: natural-gradient steps of each theta_N.
        evaluation: fresh points on which J is measured, the same for all.
        pool: fresh points from which the spread of J_N at fixed theta is measured.
    """

    problem: AbstractProblem
    sizes: tuple[int, ...] = SIZES
    replicates: tuple[int, ...] = tuple(range(16))
    alpha: float = 10.0
    network: AbstractMembers = Stages(width=8, n_steps=1, groups=1, group_size=4)
    starts: int = 8
    optimum: EnsembleConfig = EnsembleConfig(natural=300, natural_rows=4096, learning_rate=0.03)
    optimum_rows: int = 2**19
    refine: int = 150
    steps: int = 80
    evaluation: int = 200_000
    pool: int = 2**22

    kind: ClassVar[str] = "samples"
    replicates_are: ClassVar[str] = "replicates"

    def __post_init__(self) -> None:
        check_increasing("sizes", self.sizes)
        for size in self.sizes:
            check_count("sizes", size, 8)
        check_seeds(self.replicates)
        check_number("alpha", self.alpha, positive=True)
        for name in ("starts", "optimum_rows", "refine", "steps", "evaluation", "pool"):
            check_count(name, getattr(self, name))
        if isinstance(self.problem, DataProblem) and self.sizes[-1] > len(self.problem.rows):
            raise ValueError(
                f"sizes: expected at most {len(self.problem.rows)}, the training rows; "
                f"got {self.sizes[-1]}."
            )
        known = not isinstance(self.problem, DataProblem)  # data: all there are
        if known and self.pool < 16 * self.sizes[-1]:
            raise ValueError(f"pool: expected at least 16 * {self.sizes[-1]}; got {self.pool}.")

    def units(self) -> list[Unit]:
        """The class optimum, the spread at it, and all replicates of each N."""
        alpha = self.alpha
        optimum = Unit("optimum", (Plan("optimum", {"alpha": alpha}, 0),), self._optimum)
        spread = tuple(Plan(f"spread,N={n}", {"spread_n": n}, 0) for n in self.sizes)
        found = [optimum, Unit("spread", spread, self._spread, ("optimum",))]
        for n in self.sizes:
            plans = tuple(
                Plan(f"N={n},replicate={r}", {"n": n, "replicate": r}, r) for r in self.replicates
            )
            found.append(Unit(f"N={n}", plans, partial(self._replicates, n), ("optimum",)))
        return found

    def sample(self, seed: int, n: int) -> Float[np.ndarray, "n d"]:
        """n fresh points of the population; n of its rows where it is data (all if n is larger)."""
        if isinstance(self.problem, DataProblem):
            rows = self.problem.population
            if n >= len(rows):
                return rows
            return rows[np.random.default_rng(seed).permutation(len(rows))[:n]]
        exact = self.problem.reference(self.alpha)
        assert exact is not None
        return exact.sample(seed, n)

    def training_set(self, n: int, replicate: int) -> Float[np.ndarray, "n d"]:
        """The samples of one J_N."""
        seed = 1_000_000 + 10_007 * replicate + n
        if isinstance(self.problem, DataProblem):
            rows = self.problem.rows
            return rows[np.random.default_rng(seed).permutation(len(rows))[:n]]
        return self.sample(seed, n)

    def guard(self) -> Float[np.ndarray, "g d"]:
        """Points of the population moved away from its mean."""
        mean, _ = self.problem.moments()
        return mean + _GUARD_SCALE * (self.sample(_GUARD_SEED, _GUARD_ROWS) - mean)

    @_INFINITE
    def _optimum(self, saved: Saved, report: Callable[[int], None]) -> list[Outcome]:
        rows = self.sample(_OPTIMUM_SEED, self.optimum_rows)
        k = self.starts
        data = None
        if isinstance(self.problem, DataProblem):
            data = np.broadcast_to(rows, (k, *rows.shape))
        flows = self.network.train(
            self.problem, self.alpha, range(k), self.optimum, data, on_step=report
        )
        reached = [float(point_objective(f, rows, self.alpha).mean()) for f in flows]
        best = flows[int(np.argmin(reached))]
        refine = EnsembleConfig(
            first_order=0,
            natural=self.refine,
            natural_rows=len(rows),
            damping=1e-5,
            monotone=True,
        )
        done = self.optimum.first_order + self.optimum.natural
        flow = train_members(
            [best],
            self.problem,
            [self.alpha],
            [k],
            refine,
            rows[None],
            on_step=lambda steps: report(done + steps),
        )[0]
        x = self.sample(_POPULATION_SEED, self.evaluation)
        values = point_objective(flow, x, self.alpha)
        entropy = self.entropy()
        p_eff = effective_parameters(flow, x[: 2**15], self.alpha)
        found = {
            "objective": float(values.mean()) - self.alpha * entropy,
            "objective_se": float(values.std(ddof=1) / math.sqrt(len(values))),
            "p_eff": p_eff,
            "invalid": float((~np.isfinite(values)).sum()),
        }
        return [Outcome(found | exact_values(self.problem, self.alpha), flow)]

    def entropy(self) -> float:
        """H(rho0) where it is known, 0 for data: J is then transport + alpha nll."""
        exact = self.problem.reference(self.alpha)
        return 0.0 if exact is None else exact.entropy

    @_INFINITE
    def _spread(self, saved: Saved, report: Callable[[int], None]) -> list[Outcome]:
        """Standard deviation of J_N over sample sets, at the class optimum."""
        flow = saved.flow("optimum")
        values = point_objective(flow, self.sample(_POPULATION_SEED + 1, self.pool), self.alpha)
        outcomes = []
        for n in self.sizes:
            k = min(_MOST_GROUPS, len(values) // n)
            if k < 8:  # data: too few rows for disjoint sets
                outcomes.append(Outcome({"sd": math.nan, "sd_se": math.nan, "sets": k}))
                continue
            means = values[: k * n].reshape(k, n).mean(axis=1)
            sd = float(means.std(ddof=1))
            outcomes.append(Outcome({"sd": sd, "sd_se": sd / math.sqrt(2 * (k - 1)), "sets": k}))
        return outcomes

    @_INFINITE
    def _replicates(self, n: int, saved: Saved, report: Callable[[int], None]) -> list[Outcome]:
        """theta_N for all replicates of one N."""
        alpha = self.alpha
        best = saved.flow("optimum")
        data = np.stack([self.training_set(n, r) for r in self.replicates])
        config = EnsembleConfig(
            first_order=0, natural=self.steps, natural_rows=n, damping=1e-4, monotone=True
        )
        k = len(data)
        flows = train_members(
            [best] * k,
            self.problem,
            [alpha] * k,
            self.replicates,
            config,
            data,
            guard=self.guard(),
            on_step=report,
        )
        x = self.sample(_POPULATION_SEED, self.evaluation)
        population, entropy = point_objective(best, x, alpha), self.entropy()
        outcomes = []
        for flow, rows in zip(flows, data, strict=True):
            loss, at_best = (point_objective(f, rows, alpha) for f in (flow, best))
            found = point_objective(flow, x, alpha)
            gap = found - population
            values = {
                "loss": float(loss.mean()) - alpha * entropy,
                "loss_gap": float((at_best - loss).mean()),
                "population": float(found.mean()) - alpha * entropy,
                "population_gap": float(gap.mean()),
                "population_gap_se": float(gap.std(ddof=1) / math.sqrt(len(gap)))
                if np.isfinite(gap).all()
                else math.nan,
                "invalid": float((~np.isfinite(found)).sum()),
            }
            outcomes.append(Outcome(values, flow))
        return outcomes


sample_study = study_runner(SampleStudy)
"""Run a `SampleStudy` of a problem; its fields are options, the rest is as in `run_study`."""
