"""Model files: one safetensors file, JSON metadata, no code.

The metadata's `structure` is a tree of {"class": name, "fields": {...}}; arrays are tensors of the
file, named by their path in that tree. Only the classes listed in `_CLASSES` are ever built.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import jaxtyped

import otflow
from otflow.data.preprocessing import ColumnMap, Standardizer
from otflow.flow.flow import Flow
from otflow.flow.flow_target import ConditionalFlowTarget, FlowTarget
from otflow.flow.growing import GrowingFlow
from otflow.flow.pushed_normal import PushedNormal
from otflow.model.model import Model
from otflow.model.tensorfile import (
    Header,
    check_finite,
    read_header,
    read_tensors,
    reading,
    write_tensors,
)
from otflow.parallel.devices import use_all_cores
from otflow.potentials import (
    ConditionalGaussian,
    ConditionalResNet,
    ConditionalStages,
    ConvexStage,
    ConvexStages,
    GaussianBase,
    LiftedStages,
    ResNetPotential,
    StageChain,
    SumPotential,
)
from otflow.schemes import RK4, Conforming, Growing
from otflow.support.precision import dtype_of, precision
from otflow.targets import GaussianMixture, RotatedProduct, StandardNormal

FORMAT_VERSION = 2
_ENTRY = "otflow"  # of the header's metadata
_ADDED: dict[str, dict[str, Any]] = {"ColumnMap": {"arcsinh": ()}}
"""Fields that older files lack, with what they then are; files of that value lack them too."""
_Parts = tuple[dict[str, Any], dict[str, Any]]  # metadata and tensors
_CLASSES: dict[str, type[eqx.Module]] = {
    cls.__name__: cls
    for cls in (
        ColumnMap,
        ConditionalFlowTarget,
        ConditionalGaussian,
        ConditionalResNet,
        ConditionalStages,
        Conforming,
        ConvexStage,
        ConvexStages,
        Flow,
        FlowTarget,
        GaussianBase,
        GaussianMixture,
        Growing,
        GrowingFlow,
        LiftedStages,
        PushedNormal,
        RK4,
        ResNetPotential,
        RotatedProduct,
        StageChain,
        Standardizer,
        StandardNormal,
        SumPotential,
    )
}


def save_model(path: str | Path, model: Model) -> None:
    """Write a model, atomically.

    Raises:
        OSError: the file cannot be written.
        TypeError: the flow holds a class that model files do not know.
    """
    tensors: dict[str, np.ndarray] = {}
    parts: dict[str, Any] = {"flow": model.flow, "standardizer": model.standardizer}
    if model.condition is not None:
        parts["condition"] = model.condition
    if model.column_map is not None and not model.column_map.is_identity:
        parts["column_map"] = model.column_map
    structure = {name: encode(part, name, tensors) for name, part in parts.items()}
    metadata = {"format": "otflow"} | heading(FORMAT_VERSION, model.flow, structure)
    metadata |= {
        "columns": None if model.columns is None else list(model.columns),
        "settings": model.settings,
        "training": model.training,
        "versions": model.versions,
    }
    if model.condition_columns is not None:
        metadata["condition_columns"] = list(model.condition_columns)
    write_tensors(path, _ENTRY, metadata, tensors)


def heading(version: int, flow: eqx.Module, structure: dict[str, Any]) -> dict[str, Any]:
    """What the metadata of every file begins with; the structure is what `encode` made."""
    return {
        "format_version": version,
        "otflow_version": otflow.__version__,
        "dtype": str(dtype_of(flow)),
        "structure": structure,
    }


def read_model_header(path: str | Path) -> Header:
    """What a model file says of itself, as it was written; its tensors are not read.

    Raises:
        As `load_model`.
    """
    with reading(path) as path:
        header = read_header(path, _ENTRY)
        migrate(header.document, {})
        return header


def read_parts(path: Path, entry: str, version: int) -> _Parts:
    """Metadata and tensors of a file of another kind, under its own entry of the header.

    Raises:
        ValueError, KeyError: no such entry, another version, or numbers that are not finite.
    """
    document = read_header(path, entry).document
    if document["format_version"] != version:
        raise ValueError(f"format version {document['format_version']!r} is not read")
    tensors = read_tensors(path)
    check_finite(tensors)
    use_all_cores()
    return document, tensors


def load_model(path: str | Path) -> Model:
    """Read a model.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a model file of otflow, damaged, or from a newer version.
    """
    with reading(path) as path:
        metadata, tensors = migrate(read_header(path, _ENTRY).document, read_tensors(path))
        check_finite(tensors)
        _check_kinds(tensors)
        use_all_cores()
        with precision(metadata["dtype"]):
            flow = decode(metadata["structure"]["flow"], tensors)
        model = Model(
            flow=flow,
            standardizer=decode(metadata["structure"]["standardizer"], tensors, numpy=True),
            columns=None if metadata["columns"] is None else tuple(metadata["columns"]),
            settings=dict(metadata["settings"]),
            training=dict(metadata["training"]),
            versions=dict(metadata.get("versions", {})),
            **_read_condition(metadata, tensors),
            column_map=None
            if "column_map" not in metadata["structure"]
            else decode(metadata["structure"]["column_map"], tensors, numpy=True),
        )
        _check_model(model)
        if tensors:
            raise ValueError(f"no part of the model uses {', '.join(tensors)}")
        return model


def _check_kinds(tensors: dict[str, np.ndarray]) -> None:
    """The flow computes with floating numbers only."""
    for name, array in tensors.items():
        if name.startswith("flow.") and array.dtype not in (np.float32, np.float64):
            raise ValueError(f"{name}: expected float32 or float64; got {array.dtype}")


def _read_condition(metadata: dict[str, Any], tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """The entries that only files of conditional flows have."""
    found: dict[str, Any] = {}
    if "condition" in metadata["structure"]:
        found["condition"] = decode(metadata["structure"]["condition"], tensors, numpy=True)
    if metadata.get("condition_columns") is not None:
        found["condition_columns"] = tuple(metadata["condition_columns"])
    return found


def _check_model(model: Model) -> None:
    """The parts against each other."""
    if not isinstance(model.flow, Flow) or not isinstance(model.standardizer, Standardizer):
        raise ValueError("expected a Flow and a Standardizer")
    _check_columns("", model.flow.dim, model.standardizer, model.columns)
    if isinstance(model.condition, Standardizer):
        width = model.flow.condition_dim
        _check_columns("condition_", width, model.condition, model.condition_columns)
    elif model.condition is not None or model.flow.condition_dim or model.condition_columns:
        raise ValueError("condition: expected a Standardizer where the flow is conditional")
    columns = model.column_map
    if columns is not None and not (
        isinstance(columns, ColumnMap) and len(columns.step) == model.flow.dim
    ):
        raise ValueError(f"column_map: expected a ColumnMap of {model.flow.dim} columns")


def _check_columns(
    what: str, dim: int, standardizer: Standardizer, names: tuple[str, ...] | None
) -> None:
    if names is not None and (len(names) != dim or not all(isinstance(n, str) for n in names)):
        raise ValueError(f"{what}columns: expected {dim} names; got {names}")
    if standardizer.mean.shape != (dim,) or not (standardizer.scale > 0).all():
        raise ValueError(f"{what}standardizer: expected {dim} means and positive scales")


def encode(node: Any, path: str, tensors: dict[str, np.ndarray]) -> Any:
    """The tree of a node for JSON; its arrays go into `tensors`, named by their path."""
    if isinstance(node, eqx.Module):
        name = type(node).__name__
        if _CLASSES.get(name) is not type(node):
            raise TypeError(f"model files do not know the class {type(node).__qualname__}.")
        values = {f.name: getattr(node, f.name) for f in dataclasses.fields(node)}
        for field, older in _ADDED.get(name, {}).items():
            if values[field] == older:
                del values[field]
        fields = {k: encode(value, f"{path}.{k}", tensors) for k, value in values.items()}
        return {"class": name, "fields": fields}
    if isinstance(node, tuple):
        return {"tuple": [encode(v, f"{path}.{i}", tensors) for i, v in enumerate(node)]}
    if node is None or isinstance(node, (bool, int, float, str)):
        return {"value": node}
    tensors[path] = np.array(node, order="C")  # ascontiguousarray would lift scalars to 1-d
    return {"tensor": path}


def decode(spec: dict[str, Any], tensors: dict[str, np.ndarray], numpy: bool = False) -> Any:
    """The node of a tree that `encode` made; the tensors it takes leave `tensors`."""
    if "tensor" in spec:
        array = tensors.pop(spec["tensor"])  # once: a file must not name a large one many times
        return array if numpy else jnp.asarray(array)
    if "tuple" in spec:
        return tuple(decode(v, tensors, numpy) for v in spec["tuple"])
    if "value" in spec:
        return spec["value"]
    if spec["class"] not in _CLASSES:
        raise ValueError(f"unknown class {spec['class']!r}")
    cls = _CLASSES[spec["class"]]
    names = [f.name for f in dataclasses.fields(cls)]
    older = {k: v for k, v in _ADDED.get(cls.__name__, {}).items() if k not in spec["fields"]}
    if set(names) != {*spec["fields"], *older}:
        raise ValueError(f"fields of {cls.__name__}: expected {names}; got {list(spec['fields'])}")
    built = object.__new__(cls)
    for name, value in older.items():
        object.__setattr__(built, name, value)
    for name, value in spec["fields"].items():
        object.__setattr__(built, name, decode(value, tensors, numpy))
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


def _network_by_default(metadata: dict[str, Any], tensors: dict[str, Any]) -> _Parts:
    """Version 1: a file that names no potential has a residual network."""
    settings = {"potential": "resnet"} | metadata["settings"]
    return metadata | {"settings": settings}, tensors


MIGRATIONS: dict[int, Callable[[dict[str, Any], dict[str, Any]], _Parts]] = {1: _network_by_default}
"""From a version to the next: MIGRATIONS[1] takes the parts of a version-1 file to version 2."""


def migrate(metadata: dict[str, Any], tensors: dict[str, Any]) -> _Parts:
    """Metadata and tensors of a file of any version as the present version would hold them.

    Raises:
        ValueError: the version is none, or newer than this otflow.
        KeyError: the metadata has no version.
    """
    version = metadata["format_version"]
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"format version {version!r} is none")
    if version > FORMAT_VERSION:
        raise ValueError(f"format version {version} is newer than this otflow reads")
    for step in range(version, FORMAT_VERSION):
        metadata, tensors = MIGRATIONS[step](metadata, tensors)
    return metadata | {"format_version": FORMAT_VERSION}, tensors
