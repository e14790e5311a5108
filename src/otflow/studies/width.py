"""The width: how the loss that is reached falls to its floor as the network grows (SPEC 5)."""

import contextlib
import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np

from otflow.flow.evaluation import objective_gap
from otflow.flow.flow import Flow
from otflow.studies.alpha import check_increasing, check_seeds, exact_values
from otflow.studies.members import Network, point_objective, train_members
from otflow.studies.problems import ExactProblem, check_exact
from otflow.studies.runner import AbstractStudy, Outcome, Plan, Saved, Unit, study_runner
from otflow.support.checks import check_count, check_number
from otflow.training.ensemble import EnsembleConfig

WIDTHS = (4, 8, 16, 32, 64)
_POPULATION_SEED = 40_009


@dataclasses.dataclass(frozen=True)
class WidthStudy(AbstractStudy):
    """For each width: the class optimum, sought from several starts, and minimisers of J_N from it.

    Attributes:
        problem: an exact problem.
        widths: increasing.
        starts: random networks of each width; narrow classes have bad local minima.
        seeds: of the sample sets, the same for every width.
        alpha: the penalty.
        n: N of the discrete loss.
        depth, n_steps: of the class, see `Network`.
        config: training on fresh points.
        steps: natural-gradient steps on the N samples after it.
        evaluation: fresh points at which the flows have to be invertible, the same for all.
    """

    problem: ExactProblem
    widths: tuple[int, ...] = WIDTHS
    starts: int = 8
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    alpha: float = 10.0
    n: int = 4000
    depth: int = 0
    n_steps: int = 1
    config: EnsembleConfig = EnsembleConfig(learning_rate=0.03)
    steps: int = 60
    evaluation: int = 200_000

    kind: ClassVar[str] = "width"

    def __post_init__(self) -> None:
        check_exact(self.problem)
        check_increasing("widths", self.widths)
        for width in self.widths:
            Network(width, self.depth, self.n_steps)
        check_seeds(self.seeds)
        check_number("alpha", self.alpha, positive=True)
        for name in ("starts", "n", "steps", "evaluation"):
            check_count(name, getattr(self, name))

    def units(self) -> list[Unit]:
        """For each width all starts on fresh points, then all sample sets from the best."""
        found = []
        for width in self.widths:
            first = tuple(
                Plan(self.start_id(width, s), {"class": width, "start": s}, s)
                for s in range(self.starts)
            )
            second = tuple(
                Plan(f"discrete,width={width},seed={s}", {"discrete": width, "seed": s}, s)
                for s in self.seeds
            )
            name = f"class,width={width}"
            found.append(Unit(name, first, partial(self._fresh, width)))
            found.append(Unit(f"width={width}", second, partial(self._discrete, width), (name,)))
        return found

    def start_id(self, width: int, start: int) -> str:
        """The cell of one start."""
        return f"class,width={width},start={start}"

    def values(self, flows: list[Any]) -> list[dict[str, float]]:
        """J* + (J - J*) of flows by `objective_gap`, infinite where one is not invertible."""
        exact = self.problem.reference(self.alpha)
        x = exact.sample(_POPULATION_SEED, self.evaluation)
        known, found = exact_values(self.problem, self.alpha), []
        for flow in flows:
            invalid = (~np.isfinite(point_objective(flow, x, self.alpha))).sum()
            gap = objective_gap(flow, exact, seed=_POPULATION_SEED)
            valid = not invalid and math.isfinite(gap.mean)
            values = {
                "objective": exact.objective + gap.mean if valid else math.inf,
                "objective_se": gap.standard_error if valid else math.nan,
                "invalid": float(invalid),
            }
            found.append(values | known)
        return found

    def _fresh(self, width: int, saved: Saved, report: Callable[[int], None]) -> list[Outcome]:
        """Flows of one width trained on fresh points."""
        network = Network(width, self.depth, self.n_steps)
        flows = network.train(
            self.problem, self.alpha, range(self.starts), self.config, on_step=report
        )
        return [Outcome(v, f) for v, f in zip(self.values(flows), flows, strict=True)]

    def _discrete(self, width: int, saved: Saved, report: Callable[[int], None]) -> list[Outcome]:
        """Minimisers of J_N from the flows of the class."""
        exact = self.problem.reference(self.alpha)
        starts = [self._best(width, saved)] * len(self.seeds)
        data = np.stack([exact.sample(50_000_000 + seed, self.n) for seed in self.seeds])
        config = EnsembleConfig(
            first_order=0, natural=self.steps, natural_rows=self.n, damping=1e-4, monotone=True
        )
        flows = train_members(
            starts,
            self.problem,
            [self.alpha] * len(starts),
            self.seeds,
            config,
            data,
            guard=exact.sample(_POPULATION_SEED + 1, 2000),
            on_step=report,
        )
        outcomes = []
        for flow, rows, values in zip(flows, data, self.values(flows), strict=True):
            loss = point_objective(flow, rows, self.alpha) + self.alpha * exact.log_prob(rows)
            outcomes.append(Outcome(values | {"loss": float(loss.mean())}, flow))
        return outcomes

    def _best(self, width: int, saved: Saved) -> Flow:
        """The start that came lowest, of those that did not fail."""
        reached = {}
        for start in range(self.starts):
            cell_id = self.start_id(width, start)
            with contextlib.suppress(LookupError):
                reached[cell_id] = saved.values(cell_id)["objective"]
        if not reached:
            raise LookupError(f"needs a start of width {width}, all of which failed")
        return saved.flow(min(reached, key=reached.__getitem__))


width_study = study_runner(WidthStudy)
"""Run a `WidthStudy` of a problem; its fields are options, the rest is as in `run_study`."""
