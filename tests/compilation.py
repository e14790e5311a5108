"""Compiling quickly, for tests that compile more than they compute."""

import contextlib

import jax

_FLAG = "jax_disable_most_optimizations"


@contextlib.contextmanager
def quick_compilation():
    """Without most of XLA's optimisations; what was compiled should be dropped afterwards."""
    before = jax.config.read(_FLAG)
    jax.config.update(_FLAG, True)
    try:
        yield
    finally:
        jax.config.update(_FLAG, before)
