"""`otflow info`: what a model file says of itself."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from otflow.cli.errors import clean_errors
from otflow.support.jsontext import json_text


@clean_errors
def info(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what MODEL was trained on and how; its tensors are not read."""
    from otflow.model.modelfile import read_model_header

    header = read_model_header(model)
    found = _found(model, header.document, header.tensors)
    if as_json:
        typer.echo(json_text(found))
        return
    for name, value in found.items():
        if isinstance(value, dict):
            short = name == "validation"  # null where it is no number
            value = ", ".join(
                f"{k} {v:.5g}" if short and v is not None else f"{k} {v}" for k, v in value.items()
            )
        if isinstance(value, list):
            value = (" " if name == "parts" else ", ").join(value)
        if value is None and name == "columns":
            value = "no names"
        typer.echo(f"{name.replace('_', ' ')}: {value}")


def _found(path: Path, document: dict[str, Any], tensors: dict[str, Any]) -> dict[str, Any]:
    sizes = {k: math.prod(shape) for k, (shape, _) in tensors.items()}
    training = document.get("training", {})
    columns = document.get("columns")
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "format_version": document["format_version"],
        "columns": None if columns is None else [str(name) for name in columns],
        "dtype": document.get("dtype"),
        "target": _target(document, tensors),
        "parts": _classes(document.get("structure", {})),
        "parameters": sum(n for k, n in sizes.items() if k.startswith("flow.potential.")),
        "iterations": training.get("n_iter"),
        "status": training.get("status"),
        "validation": _kept(training),
        "integral": _integral(document),
        "settings": document.get("settings", {}),
        "versions": document.get("versions") or {"otflow": document.get("otflow_version")},
    }


def _classes(node: Any) -> list[str]:
    """Names of the classes in a structure, from the outside in."""
    if isinstance(node, list):
        return [name for child in node for name in _classes(child)]
    if not isinstance(node, dict):
        return []
    own = [str(node["class"])] if "class" in node else []
    return own + [name for child in node.values() for name in _classes(child)]


def _target(document: dict[str, Any], tensors: dict[str, Any]) -> str | None:
    """Class of the target, and of a mixture how many components."""
    try:
        name = str(document["structure"]["flow"]["fields"]["target"]["class"])
    except (KeyError, TypeError):
        return None
    if name != "GaussianMixture" or "flow.target.log_weights" not in tensors:
        return name
    shape, _ = tensors["flow.target.log_weights"]
    return f"{name}, {shape[0]} components"


def _integral(document: dict[str, Any]) -> str:
    """Of the density, where it was measured, or one by construction."""
    from otflow import potentials
    from otflow.flow.normalisation import BY_CONSTRUCTION, NOT_MEASURED, Integral

    try:
        found = Integral.kept(document.get("training", {}))
        if found is not None:
            return str(found)
        name = document["structure"]["flow"]["fields"]["potential"]["class"]
        stages = (potentials.ConvexStages, potentials.ConditionalStages)
        return BY_CONSTRUCTION if name in [x.__name__ for x in stages] else NOT_MEASURED
    except (AttributeError, KeyError, TypeError, ValueError):
        return "not readable"


def _kept(training: dict[str, Any]) -> dict[str, Any]:
    """Validation costs of the weights that were kept."""
    from otflow.flow.objective import costs_at

    try:
        history = training["history"]
        row = history["iteration"].index(training["n_iter"])
        return costs_at(history, row)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError):
        return {}
