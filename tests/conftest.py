"""Fixtures that more than one test file uses."""

import gc

import jax
import pytest

from otflow.precision import precision
from tests.support import OFFICIAL, load_official

# Tests compile more than they compute: a third of the suite's time. Subprocesses run as users do.
jax.config.update("jax_disable_most_optimizations", True)


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
