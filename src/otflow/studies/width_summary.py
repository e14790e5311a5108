"""The width study's table and statements, from its saved cells alone."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from otflow.studies.cell import Cell
from otflow.studies.result import (
    NOT_RESOLVED,
    Group,
    StudyResult,
    groups,
    make_series,
)
from otflow.studies.verdicts import Statement, verdict_at_least
from otflow.support.statistics import Z95, Estimate

_COLUMNS = (
    "width",
    "class_best",
    "class_mean",
    "class_gap_percent",
    "loss",
    "population",
    "exact_objective",
    "invalid",
)


def summarise_width(
    settings: dict[str, Any], cells: Sequence[Cell], planned: int | None
) -> StudyResult:
    """Table, statements and series of a width study."""
    trained, discrete = groups(cells, "class"), groups(cells, "discrete")
    rows = [_row(width, trained[width], discrete.get(width)) for width in trained]
    best = {width: Group([_best(group)]) for width, group in trained.items()}
    statements = []
    if len(trained) > 1 and len(discrete) > 1:
        statements = [
            _lower("a wider class reaches a smaller J (best of its starts)", best),
            _falls("J_N(theta_N) falls with the width", discrete, "loss"),
            _above(best),
        ]
    exact = [g.cells[0].values["exact_objective"] for g in trained.values()]
    return StudyResult.of(
        settings,
        cells,
        planned,
        columns=_COLUMNS,
        rows=rows,
        statements=statements,
        series=[
            make_series("class optimum", best, "objective", exact),
            make_series("J_N(theta_N)", discrete, "loss"),
            make_series("J(theta_N)", discrete, "objective"),
        ],
        x_name="width",
    )


def _best(group: Group) -> Cell:
    """The start that came lowest; J is infinite for a flow that is not invertible."""
    return min(group.cells, key=lambda cell: cell.values["objective"])


def _row(width: float, trained: Group, discrete: Group | None) -> dict[str, float]:
    floor = trained.cells[0].values["exact_objective"]
    best = float(trained.values("objective").min())
    row = {
        "width": width,
        "class_best": best,
        "class_mean": trained.mean("objective"),
        "class_mean_error": trained.error("objective"),
        "class_gap_percent": 100 * (best / floor - 1),
        "exact_objective": floor,
        "invalid": float(trained.values("invalid").sum()),
    }
    if discrete is not None:
        row["loss"], row["loss_error"] = discrete.mean("loss"), discrete.error("loss")
        row["population"] = discrete.mean("objective")
        row["population_error"] = discrete.error("objective")
        row["invalid"] += float(discrete.values("invalid").sum())
    return row


def _falls(claim: str, grouped: dict[float, Group], name: str) -> Statement:
    """Paired by seed: the seeds share their sample sets and evaluation points."""
    parts, steps, errors = list(grouped.items()), [], []
    for (_, a), (_, b) in itertools.pairwise(parts):
        narrow, wide = ({c.seed: c.values[name] for c in g.cells} for g in (a, b))
        pairs = [(narrow[s], wide[s]) for s in narrow if s in wide]
        if not pairs:
            return Statement(claim, NOT_RESOLVED, "neighbouring widths have no seed in common")
        if not np.isfinite(pairs).all():
            return Statement(claim, NOT_RESOLVED, "J is infinite for some flow: not invertible")
        difference = np.array([x - y for x, y in pairs])
        fall = Estimate.of_few(difference)
        steps.append(fall.mean)
        errors.append(fall.standard_error)
    i = int(np.argmin(np.array(steps) / np.maximum(errors, 1e-300)))
    text = (
        f"least certain step {steps[i]:.2e} +- {Z95 * errors[i]:.1e}, "
        f"width {parts[i][0]:g} to {parts[i + 1][0]:g}"
    )
    return Statement(claim, verdict_at_least(steps, errors), text)


def _lower(claim: str, best: dict[float, Group]) -> Statement:
    """Common evaluation points, but their errors are added: the interval errs on the wide side."""
    parts = list(best.items())
    steps, errors = [], []
    for (_, a), (_, b) in itertools.pairwise(parts):
        steps.append(a.mean("objective") - b.mean("objective"))
        errors.append(math.hypot(a.error("objective"), b.error("objective")))
    i = int(np.argmin(np.array(steps) / np.maximum(errors, 1e-300)))
    text = (
        f"least certain step {steps[i]:.2e} +- {Z95 * errors[i]:.1e}, "
        f"width {parts[i][0]:g} to {parts[i + 1][0]:g}"
    )
    return Statement(claim, verdict_at_least(steps, errors), text)


def _above(trained: dict[float, Group]) -> Statement:
    claim = "J >= J*_alpha at every width"
    gaps = [g.mean("objective") - g.mean("exact_objective") for g in trained.values()]
    errors = [g.error("objective") for g in trained.values()]
    i = int(np.argmin(gaps))
    text = f"smallest gap {gaps[i]:.2e} +- {Z95 * errors[i]:.1e} at width {list(trained)[i]:g}"
    return Statement(claim, verdict_at_least(gaps, errors), text)
