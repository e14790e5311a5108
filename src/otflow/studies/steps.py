"""The time steps: rk4's error in the nll falls like n_steps^-4, conforming has none (SPEC 3)."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import numpy as np

from otflow.flow.flow import Flow
from otflow.parallel.batching import map_rows
from otflow.schemes import RK4
from otflow.studies.alpha import EVALUATION_SEED, check_increasing, check_seeds, exact_values
from otflow.studies.members import Network, measure, train_members
from otflow.studies.problems import ExactProblem, check_exact
from otflow.studies.runner import AbstractStudy, Outcome, Plan, Saved, Unit, study_runner
from otflow.support.checks import check_count, check_number
from otflow.training.ensemble import EnsembleConfig

RK4_STEPS = (8, 16, 32, 64)
CONFORMING_STEPS = (1, 2, 4, 8, 16)


@dataclasses.dataclass(frozen=True)
class StepStudy(AbstractStudy):
    """The nll error of flows trained with rk4, and the costs of flows trained with conforming.

    Attributes:
        problem: an exact problem.
        rk4_steps: at which the rk4 flows' nll is compared with four times the largest.
        conforming_steps: K of the conforming flows, each trained at its own.
        seeds: of networks and batches.
        alpha: the penalty.
        rk4_network, rk4_config: class and training of the rk4 flows, with 8 steps and Adam only.
        width, config: of the conforming flows, depth 0 at K = 1 and 1 beyond.
        evaluation: fresh points each conforming flow is measured on.
        rows: points on which the nll error is measured.
    """

    problem: ExactProblem
    rk4_steps: tuple[int, ...] = RK4_STEPS
    conforming_steps: tuple[int, ...] = CONFORMING_STEPS
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    alpha: float = 10.0
    rk4_network: Network = Network(width=16, depth=1)
    rk4_config: EnsembleConfig = EnsembleConfig(first_order=400, first_order_rows=512, natural=0)
    width: int = 16
    config: EnsembleConfig = EnsembleConfig(natural=150, natural_rows=2000)
    evaluation: int = 100_000
    rows: int = 2000

    kind: ClassVar[str] = "steps"

    def __post_init__(self) -> None:
        check_exact(self.problem)
        for name in ("rk4_steps", "conforming_steps"):
            check_increasing(name, getattr(self, name))
            for steps in getattr(self, name):
                check_count(name, steps)
        check_seeds(self.seeds)
        check_number("alpha", self.alpha, positive=True)
        for name in ("width", "evaluation", "rows"):
            check_count(name, getattr(self, name))

    def units(self) -> list[Unit]:
        """The rk4 flows, their errors, and the conforming flows of each K."""
        trained = tuple(Plan(f"rk4,seed={s}", {"seed": s}, s) for s in self.seeds)
        errors = tuple(
            Plan(f"rk4,steps={n},seed={s}", {"rk4": n, "seed": s}, s)
            for n in self.rk4_steps
            for s in self.seeds
        )
        found = [
            Unit("rk4", trained, self._train_rk4),
            Unit("rk4 errors", errors, self._errors, ("rk4",)),
        ]
        for k in self.conforming_steps:
            plans = tuple(
                Plan(f"conforming,steps={k},seed={s}", {"conforming": k, "seed": s}, s)
                for s in self.seeds
            )
            found.append(Unit(f"conforming,steps={k}", plans, partial(self._conforming, k)))
        return found

    def _train_rk4(self, saved: Saved, report: Callable[[int], None]) -> list[Outcome]:
        starts = []
        for seed in self.seeds:
            flow = self.rk4_network.start(self.problem, self.alpha, seed)
            starts.append(Flow(flow.potential, flow.target, RK4(8)))
        alphas = [self.alpha] * len(starts)
        flows = train_members(
            starts, self.problem, alphas, self.seeds, self.rk4_config, on_step=report
        )
        return [Outcome({}, flow) for flow in flows]

    def _errors(self, saved: Saved, report: Callable[[int], None]) -> list[Outcome]:
        exact = self.problem.reference(self.alpha)
        x = exact.sample(EVALUATION_SEED, self.rows)
        flows = [saved.flow(f"rk4,seed={seed}") for seed in self.seeds]

        def log_prob(flow: Flow, n_steps: int) -> np.ndarray:
            scheme = RK4(int(n_steps), flow.scheme.trace)  # type: ignore[attr-defined]
            return map_rows(Flow(flow.potential, flow.target, scheme).log_prob, x)

        finest = [log_prob(flow, 4 * self.rk4_steps[-1]) for flow in flows]
        outcomes = []
        for n in self.rk4_steps:
            for flow, best in zip(flows, finest, strict=True):
                error = np.abs(log_prob(flow, n) - best)
                outcomes.append(Outcome({"nll_error": float(error.mean())}))
        return outcomes

    def _conforming(
        self, n_steps: int, saved: Saved, report: Callable[[int], None]
    ) -> list[Outcome]:
        """Flows of K conforming steps, trained and measured."""
        alpha = self.alpha
        network = Network(self.width, 0 if n_steps == 1 else 1, n_steps)
        flows = network.train(self.problem, alpha, self.seeds, self.config, on_step=report)
        exact = exact_values(self.problem, alpha)
        outcomes = []
        for flow in flows:
            values = measure(flow, self.problem, alpha, self.evaluation, EVALUATION_SEED)
            outcomes.append(Outcome(values | exact, flow))
        return outcomes


step_study = study_runner(StepStudy)
"""Run a `StepStudy` of a problem; its fields are options, the rest is as in `run_study`."""
