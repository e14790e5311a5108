"""OT-Flow with proof: optimal-transport normalizing flows, measured against exact answers.

Everything is imported on first use, so `import otflow` is quick and touches no device.
"""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_MODULES = (
    "certificates",
    "datasets",
    "evaluation",
    "interop",
    "model",
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
    "Between": "otflow.estimator.between",
    "Conforming": "otflow.schemes",
    "Flow": "otflow.flow.flow",
    "GaussianMixture": "otflow.targets",
    "GrowingBetween": "otflow.estimator.growing",
    "GrowingFlow": "otflow.flow.growing",
    "OTFlow": "otflow.estimator.estimator",
    "OTFlowChain": "otflow.estimator.chain",
    "Posterior": "otflow.estimator.posterior",
    "OTFlowOutlier": "otflow.estimator.outliers",
    "RK4": "otflow.schemes",
    "RotatedProduct": "otflow.targets",
    "ShardedTable": "otflow.data.shards",
    "StandardNormal": "otflow.targets",
    "fit_numpyro": "otflow.estimator.numpyro",
    "fit_unnormalised": "otflow.estimator.unnormalised",
    "join_processes": "otflow.parallel",
    "load": "otflow.estimator.loading",
    "transport_between": "otflow.estimator.between",
    "transport_cells": "otflow.estimator.cells",
    "use_all_cores": "otflow.parallel.devices",
}
_MOVED = {  # paths that were public once
    "between": "estimator.between",
    "deployment": "model.export",
    "devices": "parallel.devices",
    "evaluation": "flow.evaluation",
    "interop": "model.published",
    "loading": "estimator.loading",
    "logs": "training.logs",
    "modelfile": "model.modelfile",
    "normalisation": "flow.normalisation",
    "objective": "flow.objective",
    "precision": "support.precision",
    "shards": "data.shards",
    "tables": "data.tables",
}
__all__ = [*_MODULES, *_NAMES]


class _Moved(MetaPathFinder, Loader):
    """`import otflow.shards` gives the module that now is elsewhere, the same object."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        home, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if home == __name__ and name in _MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"{__name__}.{_MOVED[spec.name.partition('.')[2]]}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state  # that of its own place


sys.meta_path.append(_Moved())


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"otflow.{name}")
    raise AttributeError(f"module 'otflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
