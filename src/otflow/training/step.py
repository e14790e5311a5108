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


def in_chunks(x: Float[Array, "n d"]) -> tuple[Float[Array, "k c d"], Float[Array, "k c"]]:
    """Rows in equal chunks of about CHUNK, with weights 1/n on rows and 0 on the padding."""
    n = x.shape[0]
    n_chunks = -(-n // CHUNK)
    size = -(-n // n_chunks)
    padding = n_chunks * size - n
    rows = jnp.concatenate([x, x[:padding]]) if padding else x
    weights = jnp.where(jnp.arange(n_chunks * size) < n, 1 / n, 0.0).astype(x.dtype)
    return rows.reshape(n_chunks, size, -1), weights.reshape(n_chunks, size)


def _weighted(weights: Float[Array, " n"], values: Float[Array, " n"]) -> Float[Array, ""]:
    """The weighted sum; rows of weight 0 count for nothing even where they are infinite."""
    return jnp.sum(jnp.where(weights > 0, weights * values, 0.0))


def mean_costs(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    target: AbstractTarget,
    x: Float[Array, "n d"],
) -> Costs:
    """Average transport, nll and hjb over the rows, in cache-sized chunks."""

    def body(total: Costs, chunk: tuple[Array, Array]) -> tuple[Costs, None]:
        rows, weights = chunk
        part = costs(potential, scheme, target, rows)
        return jax.tree.map(lambda a, b: a + _weighted(weights, b), total, part), None

    zero = jnp.zeros((), x.dtype)
    total, _ = jax.lax.scan(body, Costs(zero, zero, zero), in_chunks(x))
    return total


def mean_nll_error(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    refined: AbstractScheme,
    target: AbstractTarget,
    x: Float[Array, "n d"],
) -> Float[Array, ""]:
    """Mean over the rows of |nll(n_steps) - nll(2 n_steps)|, nats: step doubling (SPEC 3)."""
    coarse, fine = (costs(potential, s, target, x).nll for s in (scheme, refined))
    return jnp.mean(jnp.abs(coarse - fine))


def spread(x: Float[Array, "n d"]) -> Float[Array, "k d"]:
    """Points between and around a quarter of the rows: x_i + (x_j - x_k) / 2.

    Held-out points fall there too; the map has to be invertible where no training row is.
    """
    return (x + 0.5 * (jnp.roll(x, 1, axis=0) - jnp.roll(x, 2, axis=0)))[::4]


def batch_gradient(
    scheme: AbstractScheme,
    target: AbstractTarget,
    alpha: float | Array,
    beta: float | Array,
    params: Any,
    static: Any,
    x: Float[Array, "n d"],
) -> tuple[Costs, Any]:
    """Mean costs of the rows, and the gradient of the objective with the violation's penalty."""

    def chunk_objective(params: Any, rows: Array, weights: Array) -> Any:
        potential = eqx.combine(params, static)
        found = costs(potential, scheme, target, rows)
        means = jax.tree.map(lambda a: _weighted(weights, a), found)
        safety = jnp.sum(weights) * jnp.mean(scheme.violation(potential, spread(rows)))
        return means.objective(alpha, beta) + alpha * safety, means

    value_and_grad = jax.value_and_grad(chunk_objective, has_aux=True)

    def body(total: Any, chunk: tuple[Array, Array]) -> tuple[Any, None]:
        (_, means), gradient = value_and_grad(params, *chunk)
        return jax.tree.map(jnp.add, total, (means, gradient)), None

    zero = jnp.zeros((), x.dtype)
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

    It maps (params, static, optimiser state, data (n, d), rows (steps, batch)) to
    (params, optimiser state, StepLog). A step whose objective or gradient is not finite changes
    nothing and is flagged.
    """

    @eqx.filter_jit(donate="none")
    def block(
        params: Any,
        static: Any,
        state: Any,
        data: Float[Array, "n d"],
        rows: Int[Array, "steps batch"],
    ) -> tuple[Any, Any, StepLog]:
        def step(carry: tuple[Any, Any], row: Array) -> tuple[tuple[Any, Any], StepLog]:
            means, gradient = batch_gradient(
                scheme, target, alpha, beta, carry[0], static, data[row]
            )
            carry, finite = guarded_update(optimiser, carry, means, gradient)
            return carry, StepLog(means, finite)

        (params, state), log = jax.lax.scan(step, (params, state), rows)
        return params, state, log

    return block
