"""Transport with growth: optimal transport as delta grows, exact answers as rows grow (SPEC 10)."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Float

from otflow.flow.growing import GrowingFlow, evaluate_growth
from otflow.reference import GaussianGrowth, wfr_gaussians
from otflow.studies.alpha import EVALUATION_SEED, check_increasing, check_seeds
from otflow.studies.problems import ExactProblem, check_exact
from otflow.studies.runner import AbstractStudy, Outcome, Plan, Saved, Unit, study_runner
from otflow.support.checks import check_count, check_number
from otflow.support.precision import precision
from otflow.support.statistics import covariance
from otflow.targets import GaussianMixture
from otflow.training.growing import GrowthConfig, train_growth

DELTAS = (1.0, 3.0, 10.0, 30.0)
SIZES = (100, 400, 1600)


@dataclasses.dataclass(frozen=True)
class GrowthStudy(AbstractStudy):
    """Flows with growth between two Gaussians, the problem's moments and these moved and doubled.

    The second mean lies one root mean square deviation of a column away along every column, so that
    the exact answer is known (`otflow.reference.wfr_gaussians`).

    Attributes:
        problem: an exact problem, whose mean and covariance are taken.
        deltas: prices of growth, in units of that deviation, increasing; equal masses.
        sizes: rows a side that Gaussians are fitted to, increasing; masses 1 and 2.
        seeds: of flows and rows.
        delta: of the sizes, in the same units.
        width: ridges of the one step.
        config: of the training; its seed is that of the cell.
        evaluation: fresh points for price and errors.
    """

    problem: ExactProblem
    deltas: tuple[float, ...] = DELTAS
    sizes: tuple[int, ...] = SIZES
    seeds: tuple[int, ...] = (0, 1, 2)
    delta: float = 1.0
    width: int = 8
    config: GrowthConfig = GrowthConfig(max_iter=600, plan_iter=200, learning_rate=0.01)
    evaluation: int = 50_000

    kind: ClassVar[str] = "growth"

    def __post_init__(self) -> None:
        check_exact(self.problem)
        for name in ("deltas", "sizes"):
            check_increasing(name, getattr(self, name))
        for size in self.sizes:
            check_count("sizes", size, self.problem.dim + 2)
        check_seeds(self.seeds)
        check_number("delta", self.delta, positive=True)
        check_count("width", self.width)
        check_count("evaluation", self.evaluation, 2)

    def units(self) -> list[Unit]:
        """All seeds of one delta, and all seeds of one number of rows."""
        found = []
        for delta in self.deltas:
            plans = tuple(
                Plan(f"delta={delta:g},seed={s}", {"delta": delta, "seed": s}, s)
                for s in self.seeds
            )
            found.append(Unit(f"delta={delta:g}", plans, partial(self._of_delta, delta)))
        for n in self.sizes:
            plans = tuple(Plan(f"n={n},seed={s}", {"n": n, "seed": s}, s) for s in self.seeds)
            found.append(Unit(f"n={n}", plans, partial(self._of_rows, n)))
        return found

    def _exact(self, delta: float, mass: float) -> GaussianGrowth:
        mean, cov = self.problem.moments()
        unit = math.sqrt(np.trace(cov) / len(mean))
        return wfr_gaussians(mean, mean + unit, cov, delta=unit * delta, mass_y=mass)

    def _of_delta(self, delta: float, saved: Saved, report: Callable[[int], None]) -> list[Outcome]:
        exact = self._exact(delta, 1.0)
        laws = [(exact.mean_x, exact.cov), (exact.mean_y, exact.cov)]
        limit = 0.5 * float(np.sum((exact.mean_y - exact.mean_x) ** 2))
        return [
            Outcome(self._measured(exact, laws, seed) | {"half_w2_squared": limit})
            for seed in self.seeds
        ]

    def _of_rows(self, n: int, saved: Saved, report: Callable[[int], None]) -> list[Outcome]:
        exact, outcomes = self._exact(self.delta, 2.0), []
        for seed in self.seeds:
            x = exact.sample(2 * seed + 1000, n)
            y = exact.sample(2 * seed + 1001, n) + exact.mean_y - exact.mean_x
            laws = [(rows.mean(axis=0), covariance(rows)) for rows in (x, y)]
            outcomes.append(Outcome(self._measured(exact, laws, seed)))
        return outcomes

    def _measured(
        self,
        exact: GaussianGrowth,
        laws: list[tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]],
        seed: int,
    ) -> dict[str, float]:
        """A flow between the laws, trained, against the exact answer."""
        with precision("float32"):
            start, end = (GaussianMixture(np.ones(1), m[None], c[None]) for m, c in laws)
            masses = exact.mass_x, exact.mass_y
            key = jax.random.key(seed)
            flow = GrowingFlow.create(start, end, exact.delta, 1, self.width, key, *masses)
        found = train_growth(flow, dataclasses.replace(self.config, seed=seed))
        if found.status == "non_finite":
            raise FloatingPointError("training met numbers that are not finite.")
        costs = evaluate_growth(found.flow, self.config.alpha, self.evaluation, EVALUATION_SEED)
        x = exact.sample(EVALUATION_SEED, self.evaluation)
        pushed, growth = found.flow.push(x), np.exp(exact.log_growth(x))
        square = np.sum((np.asarray(pushed.points) - exact.map(x)) ** 2, axis=1)
        off = abs(np.exp(np.asarray(pushed.log_mass)) - growth)
        return {
            "transport": costs.transport.mean,
            "transport_se": costs.transport.standard_error,
            "miss": costs.miss.mean,
            "exact_transport": exact.transport,
            "growth_error": float(off.mean() / growth.mean()),
            "map_error": math.sqrt(np.average(square, weights=growth)),
        }


growth_study = study_runner(GrowthStudy)
"""Run a `GrowthStudy` of a problem; its fields are options, the rest is as in `run_study`."""
