"""Model files: one safetensors file, JSON metadata, no code.

The metadata's `structure` is a tree of {"class": name, "fields": {...}}; arrays are tensors of the
file, named by their path in that tree. Only the classes listed in `_CLASSES` are ever built.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import jaxtyped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import otflow
from otflow.files import atomic_path
from otflow.flow import Flow
from otflow.potentials import GaussianBase, ResNetPotential, SumPotential
from otflow.precision import dtype_of, precision
from otflow.preprocessing import ColumnMap, Standardizer
from otflow.schemes import RK4, Conforming
from otflow.targets import GaussianMixture, RotatedProduct, StandardNormal

FORMAT_VERSION = 1
_DAMAGE = (
    SafetensorError,
    AttributeError,
    IndexError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
_CLASSES: dict[str, type[eqx.Module]] = {
    cls.__name__: cls
    for cls in (
        ColumnMap,
        Conforming,
        Flow,
        GaussianBase,
        GaussianMixture,
        RK4,
        ResNetPotential,
        RotatedProduct,
        Standardizer,
        StandardNormal,
        SumPotential,
    )
}


@dataclasses.dataclass(frozen=True)
class Model:
    """A flow with the map to the data's units and a summary of its training.

    `columns` are the names of the fitted frame's columns, None where it had none; `column_map`
    comes before the standardizer, None where nothing is bounded or rounded.
    """

    flow: Flow
    standardizer: Standardizer
    columns: tuple[str, ...] | None
    settings: dict[str, Any]
    training: dict[str, Any]
    column_map: ColumnMap | None = None


def save_model(path: str | Path, model: Model) -> None:
    """Write a model, atomically.

    Raises:
        OSError: the file cannot be written.
        TypeError: the flow holds a class that model files do not know.
    """
    tensors: dict[str, np.ndarray] = {}
    parts: dict[str, Any] = {"flow": model.flow, "standardizer": model.standardizer}
    if model.column_map is not None and not model.column_map.is_identity:
        parts["column_map"] = model.column_map
    metadata = {
        "format": "otflow",
        "format_version": FORMAT_VERSION,
        "otflow_version": otflow.__version__,
        "dtype": str(dtype_of(model.flow)),
        "structure": {name: _encode(part, name, tensors) for name, part in parts.items()},
        "columns": None if model.columns is None else list(model.columns),
        "settings": model.settings,
        "training": model.training,
    }
    text = json.dumps(metadata, allow_nan=False, default=_plain)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"otflow": text})


def load_model(path: str | Path) -> Model:
    """Read a model.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a model file of otflow, damaged, or from a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}.")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("otflow")
            if text is None:
                raise ValueError("a safetensors file of another program")
            metadata = json.loads(text)
            _check_version(metadata["format_version"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        with precision(metadata["dtype"]):
            flow = _decode(metadata["structure"]["flow"], tensors)
        model = Model(
            flow=flow,
            standardizer=_decode(metadata["structure"]["standardizer"], tensors, numpy=True),
            columns=None if metadata["columns"] is None else tuple(metadata["columns"]),
            settings=dict(metadata["settings"]),
            training=dict(metadata["training"]),
            column_map=None
            if "column_map" not in metadata["structure"]
            else _decode(metadata["structure"]["column_map"], tensors, numpy=True),
        )
        _check_model(model)
        return model
    except KeyError as error:
        raise ValueError(f"{path}: not a readable otflow model (no entry {error}).") from error
    except _DAMAGE as error:
        raise ValueError(f"{path}: not a readable otflow model ({error}).") from error


def _plain(value: Any) -> Any:
    """NumPy's numbers and types as JSON knows them."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (type, np.dtype)):
        return np.dtype(value).name
    raise TypeError(f"model files cannot hold a {type(value).__name__}.")


def _check_version(version: object) -> None:
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"format version {version!r} is none")
    if version > FORMAT_VERSION:
        raise ValueError(f"format version {version} is newer than this otflow reads")


def _check_model(model: Model) -> None:
    """The parts against each other."""
    if not isinstance(model.flow, Flow) or not isinstance(model.standardizer, Standardizer):
        raise ValueError("expected a Flow and a Standardizer")
    dim = model.flow.dim
    names = model.columns
    if names is not None and (len(names) != dim or not all(isinstance(n, str) for n in names)):
        raise ValueError(f"columns: expected {dim} names; got {names}")
    if model.standardizer.mean.shape != (dim,) or not (model.standardizer.scale > 0).all():
        raise ValueError(f"standardizer: expected {dim} means and positive scales")
    columns = model.column_map
    if columns is not None and not (isinstance(columns, ColumnMap) and len(columns.step) == dim):
        raise ValueError(f"column_map: expected a ColumnMap of {dim} columns")


def _encode(node: Any, path: str, tensors: dict[str, np.ndarray]) -> Any:
    if isinstance(node, eqx.Module):
        name = type(node).__name__
        if _CLASSES.get(name) is not type(node):
            raise TypeError(f"model files do not know the class {type(node).__qualname__}.")
        fields = {
            f.name: _encode(getattr(node, f.name), f"{path}.{f.name}", tensors)
            for f in dataclasses.fields(node)
        }
        return {"class": name, "fields": fields}
    if isinstance(node, tuple):
        return {"tuple": [_encode(v, f"{path}.{i}", tensors) for i, v in enumerate(node)]}
    if node is None or isinstance(node, (bool, int, float, str)):
        return {"value": node}
    tensors[path] = np.array(node, order="C")  # ascontiguousarray would lift scalars to 1-d
    return {"tensor": path}


def _decode(spec: dict[str, Any], tensors: dict[str, np.ndarray], numpy: bool = False) -> Any:
    if "tensor" in spec:
        array = tensors[spec["tensor"]]
        return array if numpy else jnp.asarray(array)
    if "tuple" in spec:
        return tuple(_decode(v, tensors, numpy) for v in spec["tuple"])
    if "value" in spec:
        return spec["value"]
    if spec["class"] not in _CLASSES:
        raise ValueError(f"unknown class {spec['class']!r}")
    cls = _CLASSES[spec["class"]]
    names = [f.name for f in dataclasses.fields(cls)]
    if set(names) != set(spec["fields"]):
        raise ValueError(f"fields of {cls.__name__}: expected {names}; got {list(spec['fields'])}")
    built = object.__new__(cls)
    for name, value in spec["fields"].items():
        object.__setattr__(built, name, _decode(value, tensors, numpy))
    _check_fields(built)
    for base in reversed(cls.__mro__):
        if "__check_init__" in vars(base):
            vars(base)["__check_init__"](built)
    return built


def _check_fields(node: eqx.Module) -> None:
    """Fields against their annotations: the class, and shapes whose letters agree in the node.

    Shapes with sums (d+1) and tuples of arrays are left to the class's own `__check_init__`.
    """
    with jaxtyped("context"):
        for f in dataclasses.fields(node):
            if not isinstance(f.type, type) or "+" in getattr(f.type, "dim_str", ""):
                continue
            value = getattr(node, f.name)
            if not isinstance(value, f.type):
                got = getattr(value, "shape", type(value).__name__)
                raise ValueError(f"{type(node).__name__}.{f.name}: expected {f.type}; got {got}")
