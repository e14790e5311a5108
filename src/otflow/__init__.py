"""OT-Flow with proof: optimal-transport normalizing flows, measured against exact answers.

Everything is imported on first use, so `import otflow` is quick and touches no device.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = (
    "certificates",
    "datasets",
    "evaluation",
    "interop",
    "objective",
    "parallel",
    "potentials",
    "precision",
    "reference",
    "report",
    "schemes",
    "studies",
    "targets",
    "training",
)
_NAMES = {
    "Between": "otflow.between",
    "Conforming": "otflow.schemes",
    "Flow": "otflow.flow",
    "GaussianMixture": "otflow.targets",
    "OTFlow": "otflow.estimator",
    "RK4": "otflow.schemes",
    "RotatedProduct": "otflow.targets",
    "ShardedTable": "otflow.shards",
    "StandardNormal": "otflow.targets",
    "join_processes": "otflow.parallel",
    "load": "otflow.loading",
    "transport_between": "otflow.between",
    "use_all_cores": "otflow.devices",
}
__all__ = [*_MODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"otflow.{name}")
    raise AttributeError(f"module 'otflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
