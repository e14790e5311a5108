"""Compiled pieces of training: mean costs in chunks, and many optimiser steps in one call."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from otflow.objective import Costs, costs
from otflow.potentials.base import AbstractPotential
from otflow.schemes.base import AbstractScheme
from otflow.targets import AbstractTarget
from otflow.training.rows import Rows, as_rows

CHUNK = 512  # points whose intermediate arrays stay in cache at usual widths


class StepLog(eqx.Module):
    """Mean costs of each step's batch, before its update, and whether the step was finite."""

    costs: Costs
    finite: Bool[Array, " steps"]


def split_trainable(potential: AbstractPotential) -> tuple[Any, Any]:
    """(parameters that an optimiser may move, everything else), to be joined by eqx.combine."""

    def spec(node: Any) -> Any:
        frozen = isinstance(node, AbstractPotential) and not node.trainable
        return jax.tree.map(lambda leaf: eqx.is_inexact_array(leaf) and not frozen, node)

    def is_frozen(node: Any) -> bool:
        return isinstance(node, AbstractPotential) and not node.trainable

    return eqx.partition(potential, jax.tree.map(spec, potential, is_leaf=is_frozen))


def in_chunks(x: Float[Array, "n d"] | Rows) -> tuple[Rows, Float[Array, "k c"]]:
    """Rows in equal chunks of about CHUNK, with weights 1/n on rows and 0 on the padding.

    Where the rows have weights of their own, 1/n is times those.
    """
    rows = as_rows(x)
    n = rows.n
    n_chunks = -(-n // CHUNK)
    size = -(-n // n_chunks)
    padding = n_chunks * size - n

    def cut(array: Array) -> Array:
        padded = jnp.concatenate([array, array[:padding]]) if padding else array
        return padded.reshape(n_chunks, size, *array.shape[1:])

    weights = jnp.where(jnp.arange(n_chunks * size) < n, 1 / n, 0.0).astype(rows.x.dtype)
    chunks = jax.tree.map(cut, rows)
    weights = weights.reshape(n_chunks, size)
    return chunks, weights if rows.weight is None else weights * chunks.weight


def _weighted(weights: Float[Array, " n"], values: Float[Array, " n"]) -> Float[Array, ""]:
    """The weighted sum; rows of weight 0 count for nothing even where they are infinite."""
    return jnp.sum(jnp.where(weights > 0, weights * values, 0.0))


def mean_costs(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    target: AbstractTarget,
    x: Float[Array, "n d"] | Rows,
) -> Costs:
    """Average transport, nll and hjb over the rows, by weight, in cache-sized chunks."""
    dtype = as_rows(x).x.dtype

    def body(total: Costs, chunk: tuple[Rows, Array]) -> tuple[Costs, None]:
        rows, weights = chunk
        part = costs(potential.given(rows.condition), scheme, target, rows.x)
        return jax.tree.map(lambda a, b: a + _weighted(weights, b), total, part), None

    zero = jnp.zeros((), dtype)
    total, _ = jax.lax.scan(body, Costs(zero, zero, zero), in_chunks(x))
    return total


def mean_nll_error(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    refined: AbstractScheme,
    target: AbstractTarget,
    x: Float[Array, "n d"] | Rows,
) -> Float[Array, ""]:
    """Mean over the rows of |nll(n_steps) - nll(2 n_steps)|, nats: step doubling (SPEC 3)."""
    rows = as_rows(x)
    potential = potential.given(rows.condition)
    coarse, fine = (costs(potential, s, target, rows.x).nll for s in (scheme, refined))
    return jnp.mean(jnp.abs(coarse - fine))


def batch_gradient(
    scheme: AbstractScheme,
    target: AbstractTarget,
    alpha: float | Array,
    beta: float | Array,
    params: Any,
    static: Any,
    x: Float[Array, "n d"] | Rows,
) -> tuple[Costs, Any]:
    """Mean costs of the rows, and the gradient of the objective with the violation's penalty."""

    def chunk_objective(params: Any, rows: Rows, weights: Array) -> Any:
        potential, around = eqx.combine(params, static), rows.around()
        found = costs(potential.given(rows.condition), scheme, target, rows.x)
        means = jax.tree.map(lambda a: _weighted(weights, a), found)
        violation = scheme.violation(potential.given(around.condition), around.x)
        safety = jnp.sum(weights) * jnp.mean(violation)
        return means.objective(alpha, beta) + alpha * safety, means

    value_and_grad = jax.value_and_grad(chunk_objective, has_aux=True)

    def body(total: Any, chunk: tuple[Rows, Array]) -> tuple[Any, None]:
        (_, means), gradient = value_and_grad(params, *chunk)
        return jax.tree.map(jnp.add, total, (means, gradient)), None

    zero = jnp.zeros((), as_rows(x).x.dtype)
    start = (Costs(zero, zero, zero), jax.tree.map(jnp.zeros_like, params))
    return jax.lax.scan(body, start, in_chunks(x))[0]


def guarded_update(
    optimiser: optax.GradientTransformation, carry: tuple[Any, Any], means: Costs, gradient: Any
) -> tuple[tuple[Any, Any], Bool[Array, ""]]:
    """(params, optimiser state) after one update, or as they were where anything is not finite."""
    params, state = carry
    finite = jnp.isfinite(means.objective(1.0, 1.0)) & jnp.isfinite(optax.tree.norm(gradient))
    updates, new_state = optimiser.update(gradient, state, params)
    new = (optax.apply_updates(params, updates), new_state)
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, carry), finite


def make_block(
    scheme: AbstractScheme,
    target: AbstractTarget,
    optimiser: optax.GradientTransformation,
    alpha: float,
    beta: float,
) -> Callable[..., tuple[Any, Any, StepLog]]:
    """A compiled function that takes as many optimiser steps as it is given batches.

    It maps (params, static, optimiser state, data, row numbers (steps, batch)) to
    (params, optimiser state, StepLog). A step whose objective or gradient is not finite changes
    nothing and is flagged.
    """

    @eqx.filter_jit(donate="none")
    def block(
        params: Any,
        static: Any,
        state: Any,
        data: Float[Array, "n d"] | Rows,
        rows: Int[Array, "steps batch"],
    ) -> tuple[Any, Any, StepLog]:
        def step(carry: tuple[Any, Any], row: Array) -> tuple[tuple[Any, Any], StepLog]:
            means, gradient = batch_gradient(
                scheme, target, alpha, beta, carry[0], static, as_rows(data).take(row)
            )
            carry, finite = guarded_update(optimiser, carry, means, gradient)
            return carry, StepLog(means, finite)

        (params, state), log = jax.lax.scan(step, (params, state), rows)
        return params, state, log

    return block
