"""Fixtures that more than one test file uses."""

import atexit
import gc
import os
import shutil
import tempfile

import jax
import pytest

from otflow.precision import precision
from tests.support import OFFICIAL, load_official

# Tests compile more than they compute. Most optimisations are left out, and what a worker has
# compiled once it and its subprocesses find in a folder that lives as long as the worker does.
COMPILED = tempfile.mkdtemp(prefix="otflow-tests-")
atexit.register(shutil.rmtree, COMPILED, ignore_errors=True)
SETTINGS = {
    "jax_disable_most_optimizations": True,
    "jax_compilation_cache_dir": COMPILED,
    "jax_persistent_cache_min_compile_time_secs": 0.2,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
for name, value in SETTINGS.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)


@pytest.fixture(autouse=True, scope="module")
def _compiled_code_is_dropped():
    """Every executable holds memory maps; Linux allows 65,530 a process, and then LLVM crashes."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def optimised():
    """All of the compiler's optimisations: for a test that computes more than it compiles."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


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
