"""The fuzz tool on 300 models and 150 tables, and what it calls clean."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_tool(name):
    """Import a file of benchmarks/, which is not part of the package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


fuzz = load_tool("fuzz")


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    return fuzz.Subject(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "n"), [("model", 300), ("table", 150)])
def test_mutants_give_clean_errors_or_work(subject, kind, n):
    report = fuzz.Report()
    for number in range(n):
        report.add(number, getattr(subject, kind)(number))
    assert report.failures == {}
    assert report.counts["clean error"] > n / 4
    assert report.counts["success"] > n / 20


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (None, "success"),
        (ValueError("mutant: no"), "clean error"),
        (OSError("mutant: no"), "clean error"),
        (ValueError("no"), "ValueError without the file: no"),
        (ValueError("mutant\nno"), "ValueError without the file: mutant\nno"),
        (KeyError("mutant"), "KeyError: 'mutant'"),
        (MemoryError("mutant"), "MemoryError: mutant"),
    ],
)
def test_what_is_clean(error, word):
    def use():
        if error is not None:
            raise error

    assert fuzz.outcome(use, Path("mutant")) == word
