"""The JKO scheme: chains of flows against its exact iterates and its gradient flow (SPEC 7)."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from otflow.flow.evaluation import objective_gap
from otflow.flow.flow import Flow
from otflow.flow.objective import kl_terms
from otflow.parallel.batching import map_rows
from otflow.reference import JKO, gradient_flow, jko, optimal_map, w2
from otflow.studies.alpha import EVALUATION_SEED, check_increasing, check_seeds
from otflow.studies.members import Stages, train_members
from otflow.studies.problems import ExactProblem, check_exact
from otflow.studies.runner import AbstractStudy, Outcome, Plan, Saved, Unit, study_runner
from otflow.support.checks import check_count, check_number
from otflow.support.statistics import covariance
from otflow.training.ensemble import EnsembleConfig

TAUS = (0.125, 0.25, 0.5, 1.0)


@dataclasses.dataclass(frozen=True)
class JKOStudy(AbstractStudy):
    """Chains that follow the gradient flow of the KL up to one time, in steps of several sizes.

    Every block is one Euler step, Brenier's map, trained on the rows that the blocks before it have
    moved, and compared with the exact minimum of its own proximal problem.

    Attributes:
        problem: an exact problem.
        taus: steps in time, increasing; each a whole part of `time`.
        seeds: of potentials, rows and batches.
        time: that the chains reach.
        members: the class of a block's potential, of one step.
        config: of a block's training.
        rows: that a chain is trained on.
        evaluation: fresh points for KL, transport and maps.
        gap_rows: points for the distance of a block to its exact minimum.
    """

    problem: ExactProblem
    taus: tuple[float, ...] = TAUS
    seeds: tuple[int, ...] = (0, 1, 2)
    time: float = 1.0
    members: Stages = Stages(n_steps=1)
    config: EnsembleConfig = EnsembleConfig(first_order=800, learning_rate=0.05, natural=0)
    rows: int = 2**17
    evaluation: int = 50_000
    gap_rows: int = 4000

    kind: ClassVar[str] = "jko"

    def __post_init__(self) -> None:
        check_exact(self.problem)
        check_increasing("taus", self.taus)
        check_number("time", self.time, positive=True)
        for tau in self.taus:
            check_number("taus", tau, positive=True)
            if not math.isclose(self._blocks(tau) * tau, self.time) or self._blocks(tau) < 1:
                raise ValueError(f"taus: expected whole parts of the time {self.time}; got {tau}.")
        check_seeds(self.seeds)
        if not isinstance(self.members, Stages) or self.members.n_steps != 1:
            raise ValueError(f"members: expected Stages of one step; got {self.members}.")
        for name in ("rows", "evaluation", "gap_rows"):
            check_count(name, getattr(self, name))

    def _blocks(self, tau: float) -> int:
        return round(self.time / tau)

    def units(self) -> list[Unit]:
        """The blocks of every tau, each after the one before it."""
        found = []
        for tau in reversed(self.taus):
            for block in range(1, self._blocks(tau) + 1):
                plans = tuple(
                    Plan(_cell_id(tau, block, s), {"tau": tau, "block": block, "seed": s}, s)
                    for s in self.seeds
                )
                after = (_unit(tau, block - 1),) if block > 1 else ()
                compute = partial(self._block, tau, block)
                found.append(Unit(_unit(tau, block), plans, compute, after))
        return found

    def _block(
        self, tau: float, block: int, saved: Saved, report: Callable[[int], None]
    ) -> list[Outcome]:
        """One block of all seeds' chains, trained together, and what the chains are then."""
        exact = self.problem.reference(math.inf)
        before = {s: [saved.flow(_cell_id(tau, b, s)) for b in range(1, block)] for s in self.seeds}
        data = [_carried(before[s], exact.sample(1000 + s, self.rows)).points for s in self.seeds]
        starts = [
            self.members.between(rows.mean(axis=0), covariance(rows, bias=True), tau, s)
            for rows, s in zip(data, self.seeds, strict=True)
        ]
        flows = train_members(
            starts,
            self.problem,
            [tau] * len(starts),
            [1000 * s + block for s in self.seeds],
            self.config,
            np.stack(data),
            on_step=report,
        )
        return [
            Outcome(self._values(tau, before[s], flow), flow)
            for s, flow in zip(self.seeds, flows, strict=True)
        ]

    def _values(self, tau: float, before: Sequence[Flow], flow: Flow) -> dict[str, float]:
        """What the chain is after the block, and how far the block is from its exact minimum."""
        N = len(before)
        scheme = _scheme(self.problem, tau, self._blocks(tau))
        exact, end = scheme.laws[N], scheme.laws[N + 1]
        limit = gradient_flow(scheme.laws[0], (N + 1) * tau)
        x = scheme.laws[0].sample(EVALUATION_SEED, self.evaluation)
        start, log_prob = _carried(before, x), scheme.laws[0].log_prob(x)
        moved = _carried([flow], start.points, start)
        KL = [scheme.kl[0] + np.zeros(len(x)) if not N else _kl(log_prob, start)]
        KL.append(_kl(log_prob, moved))
        found = {
            "kl": KL[1],
            "transport": moved.transport[-1],
            "contraction": KL[0] / (1 + tau) ** 2 - KL[1],
            "dissipation": tau * (scheme.kl[0] - KL[1]) - sum(moved.transport),
        }
        values = {}
        for name, terms in found.items():
            values[name] = float(terms.mean())
            values[f"{name}_se"] = float(terms.std() / math.sqrt(len(x)))
        gap = objective_gap(flow, exact, self.gap_rows, EVALUATION_SEED + 1)
        values |= {"gap": gap.mean, "gap_se": gap.standard_error}
        values["exact_objective"] = exact.objective
        for name, law in (("map_error", end), ("flow_error", limit)):
            way = moved.points - optimal_map(scheme.laws[0], law, x)
            values[name] = math.sqrt((way**2).sum(axis=1).mean())
        return values | _exact_values(scheme, N) | {"exact_flow_error": w2(end, limit)}


jko_study = study_runner(JKOStudy)
"""Run a `JKOStudy` of a problem; its fields are options, the rest is as in `run_study`."""


class _Carried(NamedTuple):
    """Points that blocks have moved, the sum of their log-determinants, each block's transport."""

    points: Float[np.ndarray, "n d"]
    log_det: Float[np.ndarray, " n"]
    transport: list[Float[np.ndarray, " n"]]


def _carried(
    flows: Sequence[Flow], x: Float[np.ndarray, "n d"], start: _Carried | None = None
) -> _Carried:
    points, log_det, transport = (x, np.zeros(len(x)), []) if start is None else start
    for flow in flows:
        pushed = map_rows(_pushed(flow), points)
        points, log_det = pushed[:, :-2], log_det + pushed[:, -2]
        transport = [*transport, pushed[:, -1]]
    return _Carried(points, log_det, transport)


def _pushed(flow: Flow) -> Callable[[np.ndarray], np.ndarray]:
    def push(rows: np.ndarray) -> np.ndarray:
        pushed = flow.push(rows)
        return np.column_stack([pushed.points, pushed.log_det, pushed.transport])

    return push


def _kl(log_prob: Float[np.ndarray, " n"], moved: _Carried) -> Float[np.ndarray, " n"]:
    """Terms whose mean is KL(rhohat || N(0, I)): the estimator of the smaller variance."""
    d = moved.points.shape[1]
    normal = -0.5 * (moved.points**2).sum(axis=1) - 0.5 * d * math.log(2 * math.pi)
    plain = log_prob - normal - moved.log_det
    reduced = kl_terms(plain)
    return plain if plain.std() < reduced.std() else reduced


@lru_cache(maxsize=16)
def _scheme(problem: ExactProblem, tau: float, steps: int) -> JKO:
    return jko(problem.reference(math.inf), tau, steps)


def _exact_values(scheme: JKO, n: int) -> dict[str, float]:
    """The exact step n: its costs, and what the theory promises of it, all >= 0."""
    kl, w = scheme.kl, np.sqrt(scheme.half_w2_squared)
    fall = 1 + scheme.tau
    lost = scheme.tau * (kl[0] - kl[n + 1]) - scheme.transport[: n + 1].sum()
    return {
        "exact_kl": float(kl[n + 1]),
        "exact_transport": float(scheme.transport[n]),
        "exact_contraction": float(kl[n] / fall**2 - kl[n + 1]),
        "exact_w2_contraction": float(w[n] / fall - w[n + 1]),
        "exact_dissipation": float(lost),
    }


def _unit(tau: float, block: int) -> str:
    return f"tau={tau:g},block={block}"


def _cell_id(tau: float, block: int, seed: int) -> str:
    return f"{_unit(tau, block)},seed={seed}"
