"""The convergence laboratory: every limit of the theory, measured with intervals (SPEC 5).

Names are imported on first use, so that the store can be read without JAX.
"""

import importlib
from typing import Any

_NAMES = {
    "AlphaStudy": "alpha",
    "DataProblem": "problems",
    "DensityStudy": "density",
    "EnsembleConfig": "members",
    "ExactProblem": "problems",
    "GrowthStudy": "growth",
    "JKOStudy": "jko",
    "Network": "members",
    "SampleStudy": "samples",
    "Stages": "members",
    "StepStudy": "steps",
    "Store": "store",
    "StudyResult": "result",
    "WidthStudy": "width",
    "advise_alpha": "advice",
    "alpha_study": "alpha",
    "density_study": "density",
    "fit_rate": "rates",
    "growth_study": "growth",
    "jko_study": "jko",
    "load_study": "runner",
    "make_problem": "problems",
    "make_study": "presets",
    "run_study": "runner",
    "sample_study": "samples",
    "step_study": "steps",
    "width_study": "width",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"otflow.studies.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'otflow.studies' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
