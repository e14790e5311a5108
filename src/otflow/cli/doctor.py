"""`otflow doctor`: is this installation fit to run otflow?"""

import importlib.util
import os
import platform
from importlib import metadata
from typing import Annotated, Any, NamedTuple

import typer

from otflow.parallel.cores import cores_in_reach
from otflow.support.installation import jaxlib_fault
from otflow.support.jsontext import json_text

_PACKAGES = ("otflow", "jax", "jaxlib", "equinox", "optax", "numpy", "scipy", "safetensors")
_EXTRAS = {
    "sklearn": "sklearn",
    "plot": "matplotlib",
    "tables": "polars",
    "pot": "ot",
    "log": "tensorboardX",
    "export": "flatbuffers",
    "report": "plotly",
}
_THREADS = ("XLA_FLAGS", "OMP_NUM_THREADS", "JAX_PLATFORMS", "JAX_ENABLE_X64")


class Check(NamedTuple):
    """One line: what was looked at, "ok", "note" or "bad", and what was found."""

    name: str
    state: str
    found: str


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print versions, devices, cores and threads; exit code 1 where something is known bad."""
    checks = [*_versions(), *_devices(), *_threads(), *_extras()]
    bad = any(check.state == "bad" for check in checks)
    if as_json:
        typer.echo(json_text({"ok": not bad, "checks": [c._asdict() for c in checks]}))
    else:
        for check in checks:
            typer.echo(f"{check.state:<5}{check.name}: {check.found}")
    raise typer.Exit(int(bad))


def _versions() -> list[Check]:
    found = [Check("python", "ok", platform.python_version())]
    for name in _PACKAGES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            found.append(Check(name, "bad", "not installed"))
            continue
        bad = jaxlib_fault(version) if name == "jaxlib" else None
        found.append(Check(name, "bad" if bad else "ok", f"{version}{f': {bad}' if bad else ''}"))
    return found


def _devices() -> list[Check]:
    try:
        import jax

        devices: list[Any] = jax.devices()
    except Exception as error:  # a broken driver raises almost anything
        return [Check("devices", "bad", " ".join(str(error).split()))]
    kinds = ", ".join(f"{d.platform}:{d.id} {d.device_kind}" for d in devices)
    return [Check("devices", "ok", kinds)]


def _threads() -> list[Check]:
    found = [Check("cores", "ok", f"{cores_in_reach()} usable of {os.cpu_count()}")]
    set_ = [f"{name}={os.environ[name]}" for name in _THREADS if name in os.environ]
    return [*found, Check("environment", "note" if set_ else "ok", " ".join(set_) or "untouched")]


def _extras() -> list[Check]:
    missing = [e for e, module in _EXTRAS.items() if importlib.util.find_spec(module) is None]
    if not missing:
        return [Check("extras", "ok", ", ".join(_EXTRAS))]
    return [Check("extras", "note", f"missing {', '.join(missing)}: pip install 'otflow[all]'")]
