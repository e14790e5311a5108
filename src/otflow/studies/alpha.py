"""The penalty: how minimisers of J_alpha approach optimal transport as alpha grows (SPEC 5)."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import numpy as np

from otflow.flow.flow import Flow
from otflow.studies.members import AbstractMembers, Network, measure, train_members
from otflow.studies.problems import AbstractProblem, ExactProblem
from otflow.studies.runner import AbstractStudy, Outcome, Plan, Saved, Unit, study_runner
from otflow.support.checks import check_count, check_number
from otflow.training.ensemble import EnsembleConfig

ALPHAS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
EVALUATION_SEED = 20_011  # the same points for every cell: common random numbers
_JACOBIAN_STEP = 1e-5


@dataclasses.dataclass(frozen=True)
class AlphaStudy(AbstractStudy):
    """Flows for several penalties and seeds, each warm-started from the next smaller penalty.

    Attributes:
        problem: an exact problem, or data.
        alphas: increasing, > 0.
        seeds: of network and batches.
        network: the class of potentials, a `Network` or `Stages`.
        config: how each is trained; Adam only at the first alpha.
        evaluation: fresh points each flow is measured on.
    """

    problem: AbstractProblem
    alphas: tuple[float, ...] = ALPHAS
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    network: AbstractMembers = Network(width=64)
    config: EnsembleConfig = EnsembleConfig(natural=300, damping=1e-6)
    evaluation: int = 200_000

    kind: ClassVar[str] = "alpha"

    def __post_init__(self) -> None:
        check_increasing("alphas", self.alphas)
        check_seeds(self.seeds)
        check_count("evaluation", self.evaluation)

    def units(self) -> list[Unit]:
        """One an alpha, all seeds together; and the recovery sequence where the map is known."""
        found = []
        if isinstance(self.problem, ExactProblem):
            plan = Plan("recovery", {"alpha": self.alphas[-1]}, 0)
            found.append(Unit("recovery", (plan,), self._recovery))
        for i, alpha in enumerate(self.alphas):
            plans = tuple(
                Plan(cell_id(alpha, seed), {"alpha": alpha, "seed": seed}, seed)
                for seed in self.seeds
            )
            after = (_name(self.alphas[i - 1]),) if i else ()
            found.append(Unit(_name(alpha), plans, partial(self._rung, i), after))
        return found

    def _recovery(self, saved: Saved, report: Callable[[int], None]) -> list[Outcome]:
        """J of the optimal transport map itself: transport and KL by Monte Carlo (SPEC 5)."""
        exact = self.problem.reference(math.inf)
        assert exact is not None
        x = exact.sample(EVALUATION_SEED, 20_000)
        y = exact.map(x)
        transport = 0.5 * ((y - x) ** 2).sum(axis=1)
        x, y = x[:2000], y[:2000]
        log_rho1 = -0.5 * (y**2).sum(axis=1) - 0.5 * exact.dim * math.log(2 * math.pi)
        log_det = np.linalg.slogdet(exact.jacobian(x, _JACOBIAN_STEP))[1]
        kl = exact.log_prob(x) - log_rho1 - log_det
        values = {"half_w2_squared": exact.half_w2_squared}
        for name, column in (("transport", transport), ("kl", kl)):
            values[name] = float(column.mean())
            values[f"{name}_se"] = float(column.std(ddof=1) / math.sqrt(len(column)))
        return [Outcome(values)]

    def _rung(self, index: int, saved: Saved, report: Callable[[int], None]) -> list[Outcome]:
        """The cells of one alpha."""
        alpha = self.alphas[index]
        starts: list[Flow | str] = [self._start(index, saved, seed) for seed in self.seeds]
        good = [i for i, start in enumerate(starts) if isinstance(start, Flow)]
        outcomes = [Outcome({}, error=s if isinstance(s, str) else "not computed") for s in starts]
        if not good:
            return outcomes
        config = self.config
        if index:
            config = dataclasses.replace(config, first_order=0)
        flows = train_members(
            [s for s in starts if isinstance(s, Flow)],
            self.problem,
            [alpha] * len(good),
            [1000 * self.seeds[i] + index for i in good],
            config,
            on_step=report,
        )
        exact = exact_values(self.problem, alpha)
        for i, flow in zip(good, flows, strict=True):
            values = measure(flow, self.problem, alpha, self.evaluation, EVALUATION_SEED)
            outcomes[i] = Outcome(values | exact, flow)
        return outcomes

    def _start(self, index: int, saved: Saved, seed: int) -> Flow | str:
        if index == 0:
            return self.network.start(self.problem, self.alphas[0], seed)
        try:
            return saved.flow(cell_id(self.alphas[index - 1], seed))
        except LookupError as error:
            return str(error.args[0])


alpha_study = study_runner(AlphaStudy)
"""Run an `AlphaStudy` of a problem; its fields are options, the rest is as in `run_study`."""


def cell_id(alpha: float, seed: int) -> str:
    """The name of a cell."""
    return f"{_name(alpha)},seed={seed}"


def _name(alpha: float) -> str:
    return f"alpha={alpha:.15g}"


def exact_values(problem: AbstractProblem, alpha: float) -> dict[str, float]:
    """The exact answer, as values of a cell; empty where it is unknown."""
    exact = problem.reference(alpha)
    if exact is None:
        return {}
    names = ("transport", "kl", "objective", "half_w2_squared", "rate_constant")
    values = {f"exact_{name}": float(getattr(exact, name)) for name in names}
    limit = problem.reference(math.inf)
    assert limit is not None
    x = exact.sample(EVALUATION_SEED, 20_000)
    moved = ((exact.map(x) - limit.map(x)) ** 2).sum(axis=1)
    return values | {"exact_ot_error": math.sqrt(moved.mean())}


def check_increasing(name: str, values: Sequence[float]) -> None:
    """Raise ValueError or TypeError unless values are finite, > 0 and increasing."""
    if not values:
        raise ValueError(f"{name}: expected at least one number; got none.")
    for value in values:
        check_number(name, value, positive=True)
    if any(b <= a for a, b in itertools.pairwise(values)):
        raise ValueError(f"{name}: expected increasing numbers; got {tuple(values)}.")


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise ValueError or TypeError unless seeds are distinct integers >= 0, at least one."""
    for seed in seeds:
        check_count("seeds", seed, 0)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: expected distinct integers; got {tuple(seeds)}.")
