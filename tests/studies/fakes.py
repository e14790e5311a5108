"""A study that does not train: numbers made up by its units, and how they go wrong on demand."""

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from otflow.flow.flow import Flow
from otflow.potentials import GaussianBase
from otflow.schemes import Conforming
from otflow.studies.cell import Cell
from otflow.studies.runner import AbstractStudy, Outcome, Plan, Unit
from otflow.support.precision import precision

SEEDS = (0, 1)
MEAN, COV = np.full(2, 0.5), np.diag([0.25, 4.0])  # of the problem "gaussian" in two dimensions


def numbers(alpha: float, seed: int) -> dict[str, float]:
    """Costs as an alpha study of data has them, a function of alpha and seed alone."""
    transport = 1 - 1 / (3 * alpha) + 1e-4 * seed
    return {"transport": transport, "nll": 2 + 1 / alpha, "objective": alpha / 7, "invalid": 0.0}


@dataclasses.dataclass(frozen=True)
class Ladder(AbstractStudy):
    """Units u1, u2, u4, ..., each after the one before, whose transport it reads.

    Attributes:
        n: units.
        before: called with the unit's alpha before it is computed; raises, waits, interrupts.
        bad: (alpha, seed) whose cell is an error.
        log: a file to which every computed unit is appended, with its process.
        chained: whether the units need one another.
    """

    n: int = 3
    before: Callable[[float], None] = lambda alpha: None
    bad: tuple[tuple[float, int], ...] = ()
    log: Path | None = None
    chained: bool = True

    kind = "alpha"

    def settings(self) -> dict[str, Any]:
        return {"problem": "data", "dim": 1, "n": self.n}

    def units(self) -> list[Unit]:
        """Listed in an order in which the last comes first: only `after` can put them right."""
        found = []
        for i in range(self.n):
            alpha = 2.0**i
            plans = tuple(Plan(name(alpha, s), {"alpha": alpha, "seed": s}, s) for s in SEEDS)
            after = (f"u{alpha / 2:g}",) if i and self.chained else ()
            found.append(Unit(f"u{alpha:g}", plans, self._compute(alpha), after))
        return found[::-1]

    def _compute(self, alpha: float) -> Any:
        def compute(saved, report) -> list[Outcome]:
            if self.log is not None:
                with self.log.open("a") as file:
                    file.write(f"u{alpha:g} {os.getpid()}\n")
            self.before(alpha)
            outcomes = []
            for step, seed in enumerate(SEEDS):
                report(step + 1)
                start = 0.0
                if self.chained and alpha > 1:
                    start = saved.values(name(alpha / 2, seed))["transport"]
                values = numbers(alpha, seed) | {"started_from": start}
                error = "made to fail" if (alpha, seed) in self.bad else None
                outcomes.append(Outcome({} if error else values, error=error))
            return outcomes

        return compute


def exact_flow(alpha):
    """The minimiser of J_alpha for the problem "gaussian" in two dimensions."""
    with precision("float64"):
        return Flow(GaussianBase.solve(MEAN, COV, alpha), scheme=Conforming(1))


def name(alpha: float, seed: int) -> str:
    """The id of a cell."""
    return f"alpha={alpha:g},seed={seed}"


@dataclasses.dataclass(frozen=True)
class Company:
    """Units that wait for a second process before they go on."""

    log: Path

    def __call__(self, alpha: float) -> None:
        end = time.monotonic() + 60
        while len({line.split()[1] for line in self.log.read_text().splitlines()}) < 2:
            if time.monotonic() > end:
                raise TimeoutError("nobody else came")
            time.sleep(0.01)


def cell(inputs: dict[str, Any], values: dict[str, float], seed: int = 0, id: str = "") -> Cell:
    """A finished cell made by hand."""
    return Cell(id or f"{inputs},{seed}", inputs, seed, "done", values)


def failed(inputs: dict[str, Any], seed: int = 0, error: str = "diverged") -> Cell:
    """A failed cell made by hand."""
    return Cell(f"{inputs},{seed}", inputs, seed, "failed", {}, error=error)


def verdicts(result: Any) -> dict[str, str]:
    """Verdicts by claim."""
    assert len({s.claim for s in result.statements}) == len(result.statements)
    return {s.claim: s.verdict for s in result.statements}


def evidence(result: Any, start: str) -> str:
    """The evidence of the one statement whose claim begins so."""
    (found,) = (s.evidence for s in result.statements if s.claim.startswith(start))
    return found
