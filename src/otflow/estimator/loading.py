"""From a model file back to the estimator."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from otflow.data.columns import from_set
from otflow.data.preprocessing import ColumnMap
from otflow.estimator.blocks import Block
from otflow.estimator.chain import OTFlowChain
from otflow.estimator.estimator import OTFlow
from otflow.flow.normalisation import Integral
from otflow.model.model import Model
from otflow.model.modelfile import load_model
from otflow.model.tensorfile import reading
from otflow.support.jsontext import with_nan


def load(path: str | Path) -> OTFlow:
    """The fitted estimator that `OTFlow.save` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a model file of otflow, damaged, or from a newer version.
    """
    model = load_model(path)
    with reading(path):
        estimator = _estimator(model)
        estimator._settings()
        history = with_nan(model.training["history"])
        if "natural_history" in model.training:
            estimator.natural_history_ = with_nan(model.training["natural_history"])
        estimator.n_iter_ = int(model.training["n_iter"])
        estimator.status_ = str(model.training["status"])
        estimator.integral_ = Integral.kept(model.training)
        estimator.n_train_ = _count(model.training.get("n_train"))
        estimator.decided_ = dict(model.training.get("decided", {}))
    estimator.flow_, estimator.standardizer_ = model.flow, model.standardizer
    estimator.history_, estimator.n_features_in_ = history, model.flow.dim
    estimator.column_map_ = model.column_map or ColumnMap.identity(model.flow.dim)
    estimator._shaped_by = estimator._shape()
    estimator.condition_scaler_ = model.condition
    if model.condition_columns is not None:
        estimator.condition_names_in_ = np.array(model.condition_columns, dtype=object)
    if model.columns is not None:
        estimator.feature_names_in_ = np.array(model.columns, dtype=object)
    return estimator


def _estimator(model: Model) -> OTFlow:
    """With its parameters as they were set; of a chain, with what its blocks came to."""
    settings = _as_set(model)
    if "blocks" not in model.training:
        return OTFlow(**settings)
    del settings["target"]  # always N(0, I)
    chain = OTFlowChain(**settings)
    chain.blocks_ = tuple(_block(kept) for kept in model.training["blocks"])
    if len(chain.blocks_) != len(model.flow.potential.blocks):  # type: ignore[attr-defined]
        raise ValueError(f"blocks: expected those of the flow; got {len(chain.blocks_)}.")
    return chain


def _block(kept: dict[str, Any]) -> Block:
    """A block as it was before JSON."""
    found: dict[str, Any] = {k: math.nan if v is None else v for k, v in kept.items()}
    return Block(**found)


def _as_set(model: Model) -> dict[str, Any]:
    """The parameters as they were set; of older files, columns by name and the default target."""
    if "target" in model.settings:
        raise ValueError("settings: expected no target, which is a part of the flow")
    found: dict[str, Any] = model.settings | {"target": model.flow.target}
    exact = dict(model.training.get("set", {"own_target": True}))
    if not exact.pop("own_target"):
        found["target"] = None
    return found | {name: from_set(value) for name, value in exact.items()}


def _count(found: int | None) -> int | None:
    return None if found is None else int(found)
