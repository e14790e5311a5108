"""The standard sizes of the studies: `full`, and `demo` for a few minutes."""

import dataclasses
from typing import Any

from otflow.studies.alpha import AlphaStudy
from otflow.studies.density import DensityStudy
from otflow.studies.growth import GrowthStudy
from otflow.studies.jko import JKOStudy
from otflow.studies.members import Network, Stages
from otflow.studies.problems import AbstractProblem, DataProblem
from otflow.studies.runner import AbstractStudy
from otflow.studies.samples import SIZES, SampleStudy
from otflow.studies.steps import StepStudy
from otflow.studies.width import WidthStudy
from otflow.support.checks import check_count
from otflow.training.ensemble import EnsembleConfig
from otflow.training.growing import GrowthConfig

KINDS: dict[str, Any] = {
    study.kind: study
    for study in (
        AlphaStudy,
        SampleStudy,
        WidthStudy,
        StepStudy,
        DensityStudy,
        JKOStudy,
        GrowthStudy,
    )
}


def make_study(
    kind: str,
    problem: AbstractProblem,
    seeds: int | None = None,
    demo: bool = False,
    **changes: Any,
) -> AbstractStudy:
    """A study at its standard size.

    Args:
        kind: "alpha", "samples", "width", "steps", "density", "jko" or "growth".
        problem: what to study.
        seeds: replicates a cell; None for the standard number.
        demo: the small size.
        changes: fields of the study to set otherwise.

    Raises:
        ValueError, TypeError: an unknown kind or field, or a value out of its range.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {tuple(KINDS)}; got {kind!r}.")
    fields = _full(kind, problem.dim)
    if demo:
        fields |= _DEMO[kind]
    if kind == "samples" and isinstance(problem, DataProblem):
        sizes = fields.get("sizes", SIZES)
        fields["sizes"] = tuple(n for n in sizes if n <= len(problem.rows) // 2) or (
            max(8, len(problem.rows) // 2),
        )
    if seeds is not None:
        check_count("seeds", seeds)
        fields[KINDS[kind].replicates_are] = tuple(range(seeds))
    fields |= changes
    known = {f.name for f in dataclasses.fields(KINDS[kind])}
    if unknown := set(fields) - known:
        raise ValueError(f"changes: expected fields of {sorted(known)}; got {sorted(unknown)}.")
    return KINDS[kind](problem, **fields)


def _full(kind: str, dim: int) -> dict[str, Any]:
    """Wider networks in higher dimension, where each ridge sees one direction of many."""
    if kind == "alpha" and dim > 2:
        return {"network": Network(width=16 * dim), "seeds": (0, 1)}
    if kind == "jko" and dim > 2:
        return {"members": Stages(width=16 * dim, n_steps=1)}
    return {}


_DEMO: dict[str, dict[str, Any]] = {
    "density": {"steps": (10, 100), "seeds": (0, 1), "evaluation": 20_000},
    "jko": {
        "taus": (0.25, 0.5, 1.0),
        "config": EnsembleConfig(first_order=500, learning_rate=0.05, natural=0),
        "rows": 2**15,
        "evaluation": 20_000,
        "gap_rows": 2000,
    },
    "growth": {
        "deltas": (1.0, 10.0),
        "sizes": (100, 1600),
        "seeds": (0, 1),
        "config": GrowthConfig(max_iter=300, plan_iter=200, learning_rate=0.01),
        "evaluation": 20_000,
    },
    "alpha": {
        "alphas": (1.0, 10.0, 30.0, 100.0),
        "seeds": (0, 1),
        "network": Network(width=32),
        "config": EnsembleConfig(first_order=800, natural=120, natural_rows=2000),
        "evaluation": 100_000,
    },
    "samples": {
        "sizes": (500, 1000, 2000, 4000),
        "replicates": tuple(range(8)),
        "starts": 4,
        "optimum": EnsembleConfig(natural=120, natural_rows=2000, learning_rate=0.03),
        "optimum_rows": 2**15,
        "refine": 100,
        "steps": 50,
        "evaluation": 50_000,
        "pool": 2**20,
    },
    "width": {
        "widths": (4, 8, 16, 32),
        "starts": 4,
        "seeds": (0, 1, 2, 3),
        "n": 2000,
        "config": EnsembleConfig(natural=80, natural_rows=2000, learning_rate=0.03),
        "steps": 40,
        "evaluation": 100_000,
    },
    "steps": {
        "seeds": (0, 1),
        "conforming_steps": (1, 2, 4),
        "rk4_config": EnsembleConfig(first_order=200, first_order_rows=512, natural=0),
        "config": EnsembleConfig(first_order=600, natural=80, natural_rows=1000),
        "evaluation": 50_000,
    },
}
