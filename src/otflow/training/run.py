"""One run of a training phase: history, best weights, patience, checkpoint, progress bar.

A phase says how steps are taken and how weights are judged; everything else is here, once.
"""

import abc
import dataclasses
import time
from typing import Any, Literal, NamedTuple

import numpy as np

from otflow.flow.objective import Costs
from otflow.parallel.devices import gathered
from otflow.parallel.job import check_same, is_first
from otflow.potentials.base import AbstractPotential
from otflow.schemes import AbstractScheme
from otflow.training.checkpoint import Checkpoint, Watch
from otflow.training.progress import TrainingProgress

Status = Literal["max_iter", "early_stopping", "interrupted", "non_finite", "no_step"]
History = dict[str, list[float]]
_KEPT = ("best_iteration", "lowest", "waited", "status")


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """The potential with the lowest validation objective, and how the run went.

    `history` has one entry a validation: iteration, seconds, objective, the costs on the validation
    rows at which the map is invertible (val_transport, ...), the share of the others (val_invalid),
    each of which counts 100 nats more in the objective than the mean of the rest; and what the
    phase adds. First-order steps: learning_rate, the mean costs of the batches since the last entry
    (train_transport, ...), n_steps, nll_error, the mean error of the nll from time integration by
    step doubling (nats; 0 for a scheme without one), and trace_deviation, the standard deviation
    of a point's nll by Hutchinson's trace (0 where the trace is exact). Natural steps: failed, how
    many of those since the last entry were not taken. `scheme` is the one trained with, perhaps
    refined on the way. `status` "no_step": no natural step was taken at all.
    """

    potential: AbstractPotential
    scheme: AbstractScheme
    history: History
    status: Status
    best_iteration: int


class Judged(NamedTuple):
    """What validation found of a phase's weights."""

    potential: AbstractPotential
    objective: float
    costs: Costs
    row: dict[str, Any]  # what the phase adds to the history
    usable: bool = True  # finite; else the run stops
    eligible: bool = True  # may be the best
    counts: bool = True  # against patience, if it is not the best
    afresh: bool = False  # earlier objectives were of another measure


class AbstractPhase(abc.ABC):
    """What is particular to a phase.

    Attributes:
        name: of its section of a checkpoint, and in rows of the history.
        max_iter: most steps.
        patience: validations without improvement before stopping; None never stops early.
        potential: its start.
        scheme: that it trains with, now.
        iteration: steps taken.
    """

    name: str
    max_iter: int
    patience: int | None
    potential: AbstractPotential
    scheme: AbstractScheme
    iteration: int = 0

    @abc.abstractmethod
    def advance(self) -> None:
        """The steps until the next validation."""

    @abc.abstractmethod
    def judge(self) -> Judged:
        """Validate the weights reached; called once after the start and after every `advance`."""

    @property
    @abc.abstractmethod
    def state(self) -> Any:
        """A tree whose arrays are all that `advance` goes on from."""

    @abc.abstractmethod
    def restore(self, state: Any, document: dict[str, Any]) -> None:
        """Go on from a state and what `document` said, `iteration` among it."""

    def document(self) -> dict[str, Any]:
        """What of the state is no array, for JSON."""
        return {}

    def ended(self, status: Status) -> Status:
        """The reason to stop, where the phase knows a better one."""
        return status


def run_phase(
    phase: AbstractPhase,
    show_progress: bool = True,
    watch: Watch = Watch(),
    checkpoint: Checkpoint | None = None,
) -> TrainingResult:
    """Run a phase to its end, or on from its checkpoint.

    An interrupted or non-finite run returns its best so far: look at `status`. After any error the
    state of the last validation is in the checkpoint.
    """
    run = _Run(phase, watch, checkpoint)
    show_progress = show_progress and is_first()
    try:
        with TrainingProgress(phase.max_iter, show_progress) as bar:
            if not run.restored():
                run.validate(bar)
            while run.status is None:
                phase.advance()
                run.validate(bar)
    except KeyboardInterrupt:
        run.status = "interrupted"
        run.flush()
    except Exception:  # a process was lost, perhaps: what was kept last is there to resume
        run.flush()
        raise
    assert run.status is not None
    status = phase.ended(run.status)
    return TrainingResult(gathered(run.best), phase.scheme, run.history, status, run.best_iteration)


class _Run:
    """Between validations: history, best weights and the reason to stop."""

    def __init__(self, phase: AbstractPhase, watch: Watch, checkpoint: Checkpoint | None):
        self._phase, self._watch, self._checkpoint = phase, watch, checkpoint
        self.best, self.best_iteration = phase.potential, 0
        self.lowest, self.waited = np.inf, 0
        self.status: Status | None = None
        self.history: History = {}
        self._start = time.perf_counter()

    def restored(self) -> bool:
        """Whether there was a checkpoint to go on from; every process has to find the same."""
        phase = self._phase
        saved = self._checkpoint and self._checkpoint.restore(phase.name, (phase.state, self.best))
        if saved:
            (state, self.best), document = saved
            for name in _KEPT:
                setattr(self, name, document[name])
            self.history = document["history"]
            self._start = time.perf_counter() - document["seconds"]
            phase.iteration = document["iteration"]
            phase.restore(state, document)
        told = f"{phase.iteration}{self.status}"
        check_same("checkpoint: expected the same for every process", told)
        return bool(saved)

    def validate(self, bar: TrainingProgress) -> None:
        """Record the costs, keep the best weights, decide whether to stop."""
        phase, found = self._phase, self._phase.judge()
        self._record(found)
        self._decide(found)
        bar.update(phase.iteration, found.costs)
        if self._checkpoint is not None:
            ended = self.status is not None
            self._checkpoint.keep(phase.name, (phase.state, self.best), self._document(), ended)

    def flush(self) -> None:
        """Write what the last validation kept."""
        if self._checkpoint is not None:
            self._checkpoint.flush()

    def _decide(self, found: Judged) -> None:
        phase = self._phase
        if not found.usable:
            self.status = "non_finite"
            return
        if found.afresh:
            self.lowest, self.waited = np.inf, 0
        if found.eligible and found.objective < self.lowest:
            self.best, self.best_iteration = found.potential, phase.iteration
            self.lowest, self.waited = found.objective, 0
        elif found.eligible and found.counts:
            self.waited += 1
        if phase.iteration >= phase.max_iter:
            self.status = "max_iter"
        elif phase.patience is not None and self.waited >= phase.patience:
            self.status = "early_stopping"

    def _record(self, found: Judged) -> None:
        seconds = time.perf_counter() - self._start
        row = {"iteration": self._phase.iteration, "seconds": seconds} | found.row
        row |= {"objective": found.objective}
        row |= {f"val_{name}": float(cost) for name, cost in found.costs.named().items()}
        for name, value in row.items():
            self.history.setdefault(name, []).append(value)
        self._watch.report(self._phase.name, row)

    def _document(self) -> dict[str, Any]:
        """All of the state that is no array, for JSON."""
        values = {name: getattr(self, name) for name in _KEPT}
        history = {name: list(column) for name, column in self.history.items()}
        seconds = time.perf_counter() - self._start
        values |= {"history": history, "seconds": seconds, "iteration": self._phase.iteration}
        return values | self._phase.document()
