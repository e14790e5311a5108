"""Files of flows with growth: as model files, under another entry of the header."""

import dataclasses
from pathlib import Path

import numpy as np

from otflow.data.preprocessing import Standardizer
from otflow.flow.growing import GrowingFlow
from otflow.model.modelfile import decode, encode, heading, read_parts
from otflow.model.tensorfile import reading, write_tensors
from otflow.support.jsontext import plain, with_nan
from otflow.support.precision import precision

_ENTRY, _VERSION = "otflow-growth", 1


@dataclasses.dataclass(frozen=True, eq=False)
class GrowingModel:
    """A flow with growth in the common scale of both populations.

    Attributes:
        flow: in that scale.
        scale: to it, the same number for all columns.
        columns: names of the frames' columns, None where they had none.
        alpha: weight of the miss that it was trained with.
    """

    flow: GrowingFlow
    scale: Standardizer
    columns: tuple[str, ...] | None
    alpha: float

    def __post_init__(self) -> None:
        d = self.flow.dim
        if self.scale.mean.shape != (d,) or not (self.scale.scale > 0).all():
            raise ValueError(f"scale: expected {d} means and positive scales.")
        if np.ptp(self.scale.scale) > 0:
            raise ValueError("scale: expected one scale for all columns; got several.")
        if self.columns is not None and len(self.columns) != d:
            raise ValueError(f"columns: expected {d} names; got {len(self.columns)}.")


def save_growing(path: str | Path, model: GrowingModel, history: dict[str, list[float]]) -> None:
    """Write a model and its training's history, atomically.

    Raises:
        OSError: the file cannot be written.
        TypeError: the flow holds a class that model files do not know.
    """
    tensors: dict[str, np.ndarray] = {}
    parts = {"flow": model.flow, "scale": model.scale}
    structure = {name: encode(part, name, tensors) for name, part in parts.items()}
    document = heading(_VERSION, model.flow, structure) | {
        "columns": None if model.columns is None else list(model.columns),
        "alpha": model.alpha,
        "history": plain(history),
    }
    write_tensors(path, _ENTRY, document, tensors)


def load_growing(path: str | Path) -> tuple[GrowingModel, dict[str, list[float]]]:
    """Read a model and its history.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of a flow with growth, damaged, or from a newer version.
    """
    with reading(path, "flow with growth") as path:
        found, tensors = read_parts(path, _ENTRY, _VERSION)
        with precision(found["dtype"]):
            flow = decode(found["structure"]["flow"], tensors)
        scale = decode(found["structure"]["scale"], tensors, numpy=True)
        if not isinstance(flow, GrowingFlow) or not isinstance(scale, Standardizer):
            raise ValueError("expected a GrowingFlow and a Standardizer")
        columns = None if found["columns"] is None else tuple(map(str, found["columns"]))
        model = GrowingModel(flow, scale, columns, float(found["alpha"]))
        return model, with_nan(found["history"])
