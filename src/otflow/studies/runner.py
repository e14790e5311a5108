"""Running a study: units in order, each saved whole, resumable, within a budget of time."""

import abc
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from otflow.data.preprocessing import Standardizer
from otflow.flow.flow import Flow
from otflow.model.modelfile import Model, load_model, save_model
from otflow.parallel.devices import use_all_cores
from otflow.studies.alpha_summary import summarise_alpha
from otflow.studies.cell import Cell
from otflow.studies.density_summary import summarise_density
from otflow.studies.growth_summary import summarise_growth
from otflow.studies.jko_summary import summarise_jko
from otflow.studies.members import fault
from otflow.studies.result import StudyResult
from otflow.studies.samples_summary import summarise_samples
from otflow.studies.steps_summary import summarise_steps
from otflow.studies.store import Store
from otflow.studies.width_summary import summarise_width
from otflow.support.checks import check_number
from otflow.support.installation import warn_of_faults

_SUMMARIES: dict[str, Callable[..., StudyResult]] = {
    "alpha": summarise_alpha,
    "density": summarise_density,
    "jko": summarise_jko,
    "growth": summarise_growth,
    "samples": summarise_samples,
    "steps": summarise_steps,
    "width": summarise_width,
}
_WAIT = 0.5  # seconds between looks at a unit that another process computes


@dataclasses.dataclass(frozen=True)
class Plan:
    """A cell before it is computed."""

    id: str
    inputs: dict[str, Any]
    seed: int


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a planned cell: values with an optional flow, or an error."""

    values: dict[str, float]
    flow: Flow | None = None
    error: str | None = None


class Compute(Protocol):
    """Computes the outcomes of a unit's plans; `report(steps)` moves a progress bar."""

    def __call__(self, saved: "Saved", report: Callable[[int], None]) -> list[Outcome]:
        """One outcome a plan, in order."""


@dataclasses.dataclass(frozen=True)
class Unit:
    """Cells that are computed together, after the units whose results they need."""

    name: str
    plans: tuple[Plan, ...]
    compute: Compute
    after: tuple[str, ...] = ()


class Saved:
    """What earlier units left in a store."""

    def __init__(self, store: Store):
        self._store = store

    def values(self, cell_id: str) -> dict[str, float]:
        """The values of a finished cell.

        Raises:
            LookupError: it failed.
        """
        return self._done(cell_id).values

    def flow(self, cell_id: str) -> Flow:
        """The flow of a finished cell.

        Raises:
            LookupError: it failed.
        """
        self._done(cell_id)
        return load_model(self._store.weights_path(cell_id)).flow

    def _done(self, cell_id: str) -> Cell:
        cell = self._store.cell(cell_id)
        if cell.status == "failed":
            raise LookupError(f"needs {cell_id}, which failed")
        return cell


class AbstractStudy(abc.ABC):
    """A dataclass with a problem: a plan of units, and what identifies it in a store."""

    problem: Any
    kind: ClassVar[str]
    replicates_are: ClassVar[str] = "seeds"  # the field with one seed a replicate

    def settings(self) -> dict[str, Any]:
        """What the results depend on: what the problem says of itself, and every other field."""
        found = self.problem.settings()
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.name != "problem":
                plain = dataclasses.is_dataclass(value)
                found[field.name] = dataclasses.asdict(value) if plain else value
        return found

    @abc.abstractmethod
    def units(self) -> list[Unit]:
        """The work, in an order in which every unit follows those it needs."""


class Progress(Protocol):
    """Hears of a run: cells done of all, and the unit at work with its steps."""

    def __call__(self, done: int, total: int, unit: str, steps: int) -> None:
        """Called often; must be quick."""


class Backend(Protocol):
    """Computes the units that a store lacks and saves each whole."""

    def __call__(
        self, store: Store, units: list[Unit], budget: float | None, progress: Progress
    ) -> None:
        """Start no new unit after `budget` minutes."""


def run_study(
    study: AbstractStudy,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    retry_failed: bool = False,
    budget_minutes: float | None = None,
    progress: Progress | None = None,
    backend: "Backend | None" = None,
) -> StudyResult:
    """Compute a study, or what is left of it, and sum it up.

    Several processes may run the same study in the same folder: each unit is computed by one.

    Args:
        study: what to compute.
        folder: where the store is; None for one that is thrown away.
        resume: continue the store in `folder`, which must have the study's settings.
        retry_failed: compute failed cells again.
        budget_minutes: start no new unit after this time; the summary says that it is partial.
        progress: hears of every step.
        backend: where units are computed; None is here, one after another.

    Raises:
        FileExistsError: there is a study in `folder` and resume is False.
        FileNotFoundError: there is none and resume is True.
        ValueError: it has other settings.
    """
    if budget_minutes is not None:
        check_number("budget_minutes", budget_minutes, positive=True)
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="otflow-study-") as temporary:
            inner = Path(temporary) / "study"
            options = {"budget_minutes": budget_minutes, "progress": progress}
            return run_study(study, inner, **options, backend=backend)  # type: ignore[arg-type]
    warn_of_faults()
    use_all_cores()
    settings = {"kind": study.kind, **study.settings()}
    opened = Store.resume if resume else Store.create
    with opened(folder, settings) as store:
        if retry_failed:
            store.forget_failed()
        units = study.units()
        (backend or _run)(store, units, budget_minutes, progress or (lambda *_: None))
        total = sum(len(unit.plans) for unit in units)
        return summarise(store.settings, store.cells(), total)


def study_runner(kind: Callable[..., AbstractStudy]) -> Callable[..., StudyResult]:
    """The function that makes a study of its fields, runs it and sums it up."""

    def run(
        problem: Any,
        folder: str | Path | None = None,
        *,
        resume: bool = False,
        budget_minutes: float | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> StudyResult:
        """Run a study of a problem; options are its fields, the rest is as in `run_study`."""
        given = {"resume": resume, "budget_minutes": budget_minutes, "progress": progress}
        return run_study(kind(problem, **options), folder, **given)  # type: ignore[arg-type]

    return run


def load_study(folder: str | Path) -> StudyResult:
    """The summary of what a store holds, without computing anything.

    Raises:
        FileNotFoundError, ValueError: no study there, or a damaged one.
    """
    with Store.read(folder) as store:
        return summarise(store.settings, store.cells(), None)


def summarise(settings: dict[str, Any], cells: Sequence[Cell], planned: int | None) -> StudyResult:
    """The summary of a study's cells.

    Raises:
        ValueError: a kind that this version does not know.
    """
    kind = settings.get("kind")
    if kind not in _SUMMARIES:
        raise ValueError(f"kind: expected one of {tuple(_SUMMARIES)}; got {kind!r}.")
    return _SUMMARIES[kind](settings, cells, planned)


def _run(store: Store, units: list[Unit], budget: float | None, progress: Progress) -> None:
    start, total = time.monotonic(), sum(len(unit.plans) for unit in units)
    left = [unit for unit in units if not store.has_unit(unit.name)]
    while left:
        moved = False
        for unit in ready(store, left):
            if budget is not None and time.monotonic() - start > 60 * budget:
                return
            done = total - sum(len(u.plans) for u in left)

            def report(steps: int, done: int = done, name: str = unit.name) -> None:
                progress(done, total, name, steps)

            report(0)
            with store.claim(unit.name) as mine:
                if mine:
                    if not store.has_unit(unit.name):
                        save_unit(store, unit, *compute_unit(unit, Saved(store), report))
                    moved = True
            if moved:
                break  # earlier units first: what they allow may be ready now
        left = [unit for unit in left if not store.has_unit(unit.name)]
        if left and not moved:
            time.sleep(_WAIT)
    progress(total, total, "", 0)


def ready(store: Store, units: Iterable[Unit]) -> list[Unit]:
    """Those whose needs are saved."""
    return [unit for unit in units if all(store.has_unit(name) for name in unit.after)]


def compute_unit(
    unit: Unit, saved: Any, report: Callable[[int], None]
) -> tuple[list[Outcome], float]:
    """A unit's outcomes and seconds a cell; an error becomes the error of all its cells."""
    start = time.monotonic()
    try:
        outcomes = unit.compute(saved, report)
        if len(outcomes) != len(unit.plans):
            raise RuntimeError(f"expected {len(unit.plans)} outcomes; got {len(outcomes)}")
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        outcomes = [Outcome({}, error=message) for _ in unit.plans]
    return outcomes, (time.monotonic() - start) / len(unit.plans)


def save_unit(store: Store, unit: Unit, outcomes: list[Outcome], seconds: float) -> None:
    """Save a computed unit, whole."""
    cells, writers = [], {}
    for plan, outcome in zip(unit.plans, outcomes, strict=True):
        wrong = outcome.error or (outcome.flow and fault(outcome.flow)) or None
        path = store.weights_path(plan.id)
        has_weights = outcome.flow is not None and wrong is None
        if has_weights:
            writers[path.name] = _writer(outcome.flow)
        cells.append(
            Cell(
                id=plan.id,
                inputs=plan.inputs,
                seed=plan.seed,
                status="failed" if wrong else "done",
                values=outcome.values,
                error=wrong,
                seconds=seconds,
                weights=path.name if has_weights else None,
            )
        )
    store.save_unit(unit.name, cells, writers)


def _writer(flow: Any) -> Callable[[Path], None]:
    model = Model(flow, Standardizer.identity(flow.dim), None, {}, {})
    return lambda path: save_model(path, model)
