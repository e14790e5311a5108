"""The density: it integrates to one whatever the parameters, along training, tails included."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from otflow.flow.evaluation import evaluate
from otflow.flow.flow import Flow
from otflow.flow.normalisation import density_integral
from otflow.parallel.batching import map_rows
from otflow.studies.alpha import EVALUATION_SEED, check_increasing, check_seeds
from otflow.studies.members import AbstractMembers, Stages, train_members
from otflow.studies.problems import ExactProblem, check_exact
from otflow.studies.runner import AbstractStudy, Outcome, Plan, Saved, Unit, study_runner
from otflow.support.checks import check_count, check_number
from otflow.training.ensemble import EnsembleConfig

STEPS = (10, 100, 1000)
_REACH = 1000.0  # deviations, to which the quadrature goes
_POINTS = {1: 20_001, 2: 701}  # of the grid, an axis
_DRAWS = 2**16  # of importance sampling, beyond two dimensions


@dataclasses.dataclass(frozen=True)
class DensityStudy(AbstractStudy):
    """The integral and the KL of densities on their way: after few and after many steps.

    Attributes:
        problem: an exact problem.
        steps: first-order steps after which a density is looked at, increasing.
        seeds: of potentials and batches.
        alpha: the penalty.
        members: the class of potentials; a `Network` shows what happens where maps may fold.
        config: of the steps; how many there are is said by `steps`.
        evaluation: fresh points for the KL.
    """

    problem: ExactProblem
    steps: tuple[int, ...] = STEPS
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    alpha: float = 10.0
    members: AbstractMembers = Stages()
    config: EnsembleConfig = EnsembleConfig(first_order_rows=512, learning_rate=0.05, natural=0)
    evaluation: int = 50_000

    kind: ClassVar[str] = "density"

    def __post_init__(self) -> None:
        check_exact(self.problem)
        check_increasing("steps", self.steps)
        for steps in self.steps:
            check_count("steps", steps)
        check_seeds(self.seeds)
        check_number("alpha", self.alpha, positive=True)
        check_count("evaluation", self.evaluation)

    def units(self) -> list[Unit]:
        """All seeds after so many steps, from where they were before."""
        found = []
        for i, steps in enumerate(self.steps):
            plans = tuple(
                Plan(_cell_id(steps, s), {"steps": steps, "seed": s}, s) for s in self.seeds
            )
            after = (f"steps={self.steps[i - 1]}",) if i else ()
            found.append(Unit(f"steps={steps}", plans, partial(self._rung, i), after))
        return found

    def _rung(self, index: int, saved: Saved, report: Callable[[int], None]) -> list[Outcome]:
        """The flows after `steps[index]`, measured."""
        done = self.steps[index - 1] if index else 0
        starts = [
            saved.flow(_cell_id(done, seed))
            if index
            else self.members.start(self.problem, self.alpha, seed)
            for seed in self.seeds
        ]
        config = dataclasses.replace(self.config, first_order=self.steps[index] - done)
        flows = train_members(
            starts,
            self.problem,
            [self.alpha] * len(starts),
            [1000 * seed + index for seed in self.seeds],
            config,
            on_step=report,
        )
        return [Outcome(self._values(flow), flow) for flow in flows]

    def _values(self, flow: Flow) -> dict[str, float]:
        density, exact = self.problem.density, self.problem.reference(self.alpha)
        found = evaluate(flow, density, self.alpha, self.evaluation, EVALUATION_SEED, exact)
        total, error = integral(flow, *self.problem.moments())
        return {
            "integral": total,
            "integral_se": error,
            "kl": found.kl.mean,
            "kl_se": found.kl.standard_error,
            "invalid": float(found.invalid),
        }


density_study = study_runner(DensityStudy)
"""Run a `DensityStudy` of a problem; its fields are options, the rest is as in `run_study`."""


def integral(
    flow: Flow, mean: Float[np.ndarray, " d"], cov: Float[np.ndarray, "d d"]
) -> tuple[float, float]:
    """The integral of a flow's density over the whole space, and its error.

    Up to two dimensions by the trapezoidal rule on a grid that widens as sinh, out to a thousand
    deviations; the error is the difference to every second point. Beyond by `density_integral`.

    Args:
        flow: unconditional.
        mean, cov: of the law it was trained on, in its space.
    """
    d = flow.dim
    if d > len(_POINTS):
        rows = np.random.default_rng(EVALUATION_SEED).multivariate_normal(mean, cov, 4096)
        found = density_integral(flow, rows, EVALUATION_SEED, _DRAWS)
        return found.mean, found.standard_error
    t = np.linspace(-np.arcsinh(_REACH), np.arcsinh(_REACH), _POINTS[d])
    root = np.linalg.cholesky(np.atleast_2d(cov))
    z = np.stack(np.meshgrid(*[np.sinh(t)] * d, indexing="ij"), -1).reshape(-1, d)
    log_weight = np.log(np.cosh(t) * (t[1] - t[0]))
    weights = sum(np.meshgrid(*[log_weight] * d, indexing="ij")) + np.log(np.diag(root)).sum()
    log_p = map_rows(flow.log_prob, mean + z @ root.T)
    values = np.exp(np.asarray(log_p, float).reshape(weights.shape) + weights)
    coarse = values[(slice(None, None, 2),) * d].sum() * 2**d
    return float(values.sum()), abs(float(values.sum() - coarse))


def _cell_id(steps: int, seed: int) -> str:
    return f"steps={steps},seed={seed}"
