"""What the installed package promises before anything is computed."""

import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import otflow

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


PROBE = """
import sys, time; start = time.perf_counter(); import otflow
print(time.perf_counter() - start)
print(*sys.modules)
otflow.Flow, otflow.training
print(*sys.modules)
import types, otflow.estimator.estimator
print(*[n for n in otflow._NAMES if isinstance(getattr(otflow, n), types.ModuleType)])
"""


@pytest.fixture(scope="module")
def fresh():
    """What a new process finds: seconds, packages after the import and after first use, modules."""
    words = [sys.executable, "-c", PROBE]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seconds, at_once, used, shadowed = done.stdout.removesuffix("\n").split("\n")
    packages = [{name.split(".")[0] for name in names.split()} for names in (at_once, used)]
    return float(seconds), *packages, shadowed.split()


def test_import_is_quick_and_light(fresh):
    """Under one second, without JAX, scikit-learn or any other heavy package."""
    seconds, packages, _, _ = fresh
    assert seconds < 1.0
    heavy = {"jax", "jaxlib", "equinox", "sklearn", "numpy", "scipy", "polars", "matplotlib"}
    assert heavy.isdisjoint(packages)


def test_the_library_imports_without_optional_packages_at_first_use(fresh):
    _, _, packages, _ = fresh
    assert "jax" in packages
    assert {"sklearn", "polars", "matplotlib", "ot"}.isdisjoint(packages)


@pytest.mark.parametrize("old", otflow._MOVED)
def test_paths_of_before_give_the_module_of_now(old):
    new = importlib.import_module(f"otflow.{otflow._MOVED[old]}")
    assert importlib.import_module(f"otflow.{old}") is new
    assert new.__spec__.name == new.__name__ == f"otflow.{otflow._MOVED[old]}"


@pytest.mark.parametrize("name", otflow.__all__)
def test_every_public_name_resolves(name):
    value = getattr(otflow, name)
    assert value is not None
    assert name in dir(otflow)


def test_the_public_names_are_those_of_the_documentation():
    """The table of docs/api has every name of `otflow.__all__` but old paths, and no other one."""
    table = (ROOT / "docs" / "api" / "index.md").read_text()
    told = re.findall(r"`(?:otflow\.)?(\w+)`", "".join(re.findall(r"\[.*?\]", table)))
    assert sorted(told) == sorted(set(otflow.__all__) - set(otflow._MOVED))


def test_no_public_name_is_shadowed_by_a_submodule(fresh):
    """`import otflow.estimator` first, then the names: none of the objects became a module."""
    *_, shadowed = fresh
    assert shadowed == []


def test_unknown_names_raise():
    with pytest.raises(AttributeError, match="module 'otflow' has no attribute 'nothing'"):
        _ = otflow.nothing


def test_is_typed():
    assert (Path(otflow.__file__).parent / "py.typed").is_file()


def test_the_version_is_in_one_place():
    """The package's metadata take it from `otflow.__version__`; who cites it says the same."""
    assert PROJECT["dynamic"] == ["version"]
    assert importlib.metadata.version("otflow") == otflow.__version__
    assert f"\nversion: {otflow.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_command_is_declared():
    module, function = PROJECT["scripts"]["otflow"].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_python_m_otflow():
    done = subprocess.run(
        [sys.executable, "-m", "otflow", "--version"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.strip() == f"otflow {otflow.__version__}"
    assert done.stderr == ""
