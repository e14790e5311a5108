"""Compiling the programs that training and scoring spend their time in."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

# JAX 0.12 hands elementwise work on the CPU to a library that makes a step 15 to 70 % slower
_WANTED = {"xla_cpu_experimental_ynn_fusion_type": ""}


def hot_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """`eqx.filter_jit` with the compiler's options for hot programs; not for use inside another.

    Nothing is compiled and no device is touched before the first call.
    """

    @functools.cache
    def compiled() -> Callable[..., Any]:
        options: dict[str, Any] = {"compiler_options": compiler_options()}
        return eqx.filter_jit(function, **options)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return compiled()(*args, **kwargs)

    return call


@functools.cache
def compiler_options() -> dict[str, Any]:
    """The options, or none of them where this jaxlib does not know their names."""
    try:
        jax.jit(lambda x: x, compiler_options=_WANTED).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return dict(_WANTED)


def within_jax(tree: object) -> bool:
    """Whether a tree is under a transformation, or all computations go into somebody's program."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree)):
        return True
    with jax.transfer_guard("allow"):
        return isinstance(jnp.zeros(()), jax.core.Tracer)
