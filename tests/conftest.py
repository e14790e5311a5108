"""Fixtures that more than one test file uses."""

import gc
import os
import shutil
from pathlib import Path

# the matrices are small: threads of their own would only wait for each other
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# XLA complains of every program that it takes from a cache
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import jax
import jaxlib.version
import pytest

import otflow.estimator.fitting
from otflow.estimator import defaults
from otflow.flow.normalisation import Integral
from otflow.support.precision import precision
from otflow.training import plan
from tests.helpers import OFFICIAL, load_official
from tests.models import Trained

# Tests compile more than they compute, so programs are compiled quickly, not well, and kept in a
# folder under build/ that all processes share and the next run finds.
COMPILED = Path(__file__).resolve().parents[1] / "build" / "compiled"
_MOST_BYTES = 2**30
SETTINGS = {
    "jax_disable_most_optimizations": True,
    "jax_compilation_cache_dir": str(COMPILED),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
_FLAGS = ["--xla_cpu_parallel_codegen_split_count=1"]
if jaxlib.version.__version_info__ < (0, 10):  # a third less time; unknown since
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")

if COMPILED.exists() and sum(f.stat().st_size for f in COMPILED.iterdir()) > _MOST_BYTES:
    shutil.rmtree(COMPILED, ignore_errors=True)
for name, value in SETTINGS.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)
os.environ["XLA_FLAGS"] = " ".join([*_FLAGS, os.environ.get("XLA_FLAGS", "")])
gc.set_threshold(100_000, 50, 100)  # tracing makes many objects and few cycles


defaults._PLAN_STEPS, plan._POINTS = 100, 256  # those of users are test_plan.py's
# tests of its own: test_normalisation.py
otflow.estimator.fitting.density_integral = lambda *_, **__: Integral(1.0, 0.0)


def pytest_collection_finish():
    """What was imported stays: the collections after each module need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _compiled_code_is_dropped():
    """Every executable holds memory maps; Linux allows 65,530 a process, and then LLVM crashes."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def float64():
    """The whole test computes in float64; JAX's global flags stay as they are."""
    with precision("float64"):
        yield


@pytest.fixture(scope="session")
def official():
    """A trained potential of the published code with its own float64 outputs."""
    if not OFFICIAL.exists():
        pytest.skip(f"needs shared/data/{OFFICIAL.name} beside the repository")
    return load_official()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Models of tests/models.py."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    folder = folder / "models"
    folder.mkdir(exist_ok=True)
    return Trained(folder)
