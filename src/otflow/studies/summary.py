"""From saved cells to a summary, by the study's kind."""

from collections.abc import Callable, Sequence
from typing import Any

from otflow.studies.alpha_summary import summarise_alpha
from otflow.studies.cell import Cell
from otflow.studies.result import StudyResult
from otflow.studies.samples_summary import summarise_samples
from otflow.studies.steps_summary import summarise_steps
from otflow.studies.width_summary import summarise_width

_KINDS: dict[str, Callable[..., StudyResult]] = {
    "alpha": summarise_alpha,
    "samples": summarise_samples,
    "steps": summarise_steps,
    "width": summarise_width,
}


def summarise(settings: dict[str, Any], cells: Sequence[Cell], planned: int | None) -> StudyResult:
    """The summary of a study's cells.

    Raises:
        ValueError: a kind that this version does not know.
    """
    kind = settings.get("kind")
    if kind not in _KINDS:
        raise ValueError(f"kind: expected one of {tuple(_KINDS)}; got {kind!r}.")
    return _KINDS[kind](settings, cells, planned)


__all__ = ["StudyResult", "summarise"]
