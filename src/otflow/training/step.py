"""Pieces of training on one device: mean costs and gradients in chunks, guarded updates."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from otflow.data.rows import Rows, as_rows
from otflow.flow.objective import Costs, costs
from otflow.potentials.base import AbstractPotential, chunk_size
from otflow.schemes.base import AbstractScheme
from otflow.targets import AbstractTarget

INVALID_NLL = 100.0  # nats, of a validation row at which the map is not invertible


def split_trainable(potential: AbstractPotential) -> tuple[Any, Any]:
    """(parameters that an optimiser may move, everything else), to be joined by eqx.combine."""

    def spec(node: Any) -> Any:
        frozen = isinstance(node, AbstractPotential) and not node.trainable
        return jax.tree.map(lambda leaf: eqx.is_inexact_array(leaf) and not frozen, node)

    def is_frozen(node: Any) -> bool:
        return isinstance(node, AbstractPotential) and not node.trainable

    return eqx.partition(potential, jax.tree.map(spec, potential, is_leaf=is_frozen))


def in_chunks(
    x: Float[Array, "n d"] | Rows, size: int, share: Float[Array, " n"] | None = None
) -> tuple[Rows, Float[Array, "k c"]]:
    """Rows in equal chunks of at most `size`, with their shares of the mean; 0 on the padding.

    The share is 1/n by default, and times a row's own weight where there is one.
    """
    rows = as_rows(x)
    n = rows.n
    n_chunks = -(-n // size)
    size = -(-n // n_chunks)
    padding = n_chunks * size - n
    share = equal_shares(rows) if share is None else share

    def cut(array: Array) -> Array:
        padded = jnp.concatenate([array, array[:padding]]) if padding else array
        return padded.reshape(n_chunks, size, *array.shape[1:])

    chunks = jax.tree.map(cut, rows)
    shares = jnp.pad(share, (0, padding)).reshape(n_chunks, size)
    return chunks, shares if rows.weight is None else shares * chunks.weight


def equal_shares(rows: Rows) -> Float[Array, " n"]:
    """1/n for every row."""
    return jnp.full(rows.n, 1 / rows.n, rows.x.dtype)


def _weighted(weights: Float[Array, " n"], values: Float[Array, " n"]) -> Float[Array, ""]:
    """The weighted sum; rows of weight 0 count for nothing even where they are infinite."""
    return jnp.sum(jnp.where(weights > 0, weights * values, 0.0))


class ValidCosts(eqx.Module):
    """Costs summed by share over the rows of finite nll; the shares of these and of the others.

    The nll is infinite where a map with an exact log-determinant is not invertible.
    """

    sums: Costs
    valid: Float[Array, ""]
    invalid: Float[Array, ""]

    @staticmethod
    def of(found: Costs, shares: Float[Array, " n"]) -> "ValidCosts":
        """From the costs of every row."""
        lost = jnp.isposinf(found.nll)
        kept = jnp.where(lost, 0.0, shares)
        sums = jax.tree.map(lambda values: _weighted(kept, values), found)
        return ValidCosts(sums, jnp.sum(kept), jnp.sum(jnp.where(lost, shares, 0.0)))

    def means(self) -> Costs:
        """The average over the valid rows; shares sum to 1. Without any the nll is infinite."""
        if self.invalid == 0:
            return self.sums
        if self.valid == 0:
            return dataclasses.replace(self.sums, nll=jnp.full_like(self.valid, jnp.inf))
        return jax.tree.map(lambda a: a / self.valid, self.sums)

    def objective(self, alpha: float, beta: float = 0.0) -> float:
        """That of the means, and INVALID_NLL nats more for every invalid row."""
        return float(self.means().objective(alpha, beta) + alpha * INVALID_NLL * self.invalid)


def valid_costs(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    target: AbstractTarget,
    x: Float[Array, "n d"] | Rows,
    share: Float[Array, " n"] | None = None,
) -> ValidCosts:
    """The costs summed over the rows by share, 1/n by default, in small chunks."""
    dtype = as_rows(x).x.dtype

    def body(total: ValidCosts, chunk: tuple[Rows, Array]) -> tuple[ValidCosts, None]:
        rows, shares = chunk
        c = rows.condition
        part = costs(potential.given(c), scheme, target.given(c), rows.x)
        return jax.tree.map(jnp.add, total, ValidCosts.of(part, shares)), None

    start = ValidCosts(Costs.nothing(scheme, dtype), *jnp.zeros(2, dtype))
    return jax.lax.scan(body, start, in_chunks(x, chunk_size(potential), share))[0]


def mean_nll_error(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    refined: AbstractScheme,
    target: AbstractTarget,
    x: Float[Array, "n d"] | Rows,
) -> Float[Array, ""]:
    """Mean over the rows of |nll(n_steps) - nll(2 n_steps)|, nats: step doubling (SPEC 3)."""
    return jnp.mean(jnp.abs(_nll_difference(potential, scheme, refined, target, as_rows(x))))


def nll_deviation(
    potential: AbstractPotential,
    exact: AbstractScheme,
    estimated: AbstractScheme,
    target: AbstractTarget,
    x: Float[Array, "n d"] | Rows,
) -> Float[Array, ""]:
    """Root mean square over the rows of the difference between two schemes' nll, nats."""
    difference = _nll_difference(potential, exact, estimated, target, as_rows(x))
    return jnp.sqrt(jnp.mean(difference**2))


def _nll_difference(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    other: AbstractScheme,
    target: AbstractTarget,
    rows: Rows,
) -> Float[Array, " n"]:
    """nll of every row by one scheme, less that by another."""
    potential, target = potential.given(rows.condition), target.given(rows.condition)
    first, second = (costs(potential, s, target, rows.x).nll for s in (scheme, other))
    return first - second


def batch_gradient(
    scheme: AbstractScheme,
    target: AbstractTarget,
    alpha: float | Array,
    beta: float | Array,
    params: Any,
    static: Any,
    x: Float[Array, "n d"] | Rows,
    share: Float[Array, " n"] | None = None,
    around: tuple[Rows, Float[Array, " k"]] | None = None,
) -> tuple[Costs, Any]:
    """Costs summed by share, and the gradient of the objective with the violation's penalty.

    The shares of a batch sum to 1 (1/n by default); those of one device's part to less. The penalty
    is on the points `around` with their shares, by default `Rows.around` of the batch.
    """

    def objective(params: Any, number: Array, rows: Rows, shares: Array) -> Any:
        potential = eqx.combine(params, static).given(rows.condition)
        found = costs(potential, scheme.folded(number), target.given(rows.condition), rows.x)
        means = jax.tree.map(lambda a: _weighted(shares, a), found)
        return means.objective(alpha, beta), means

    def penalty(params: Any, points: Rows, shares: Array) -> Array:
        potential = eqx.combine(params, static).given(points.condition)
        return alpha * _weighted(shares, scheme.violation(potential, points.x))

    def body(total: Any, chunk: tuple[Array, Rows, Array]) -> tuple[Any, None]:
        value_and_grad = jax.value_and_grad(objective, has_aux=True)
        (_, means), gradient = value_and_grad(params, *chunk)
        return jax.tree.map(jnp.add, total, (means, gradient)), None

    def repel(total: Any, chunk: tuple[Rows, Array]) -> tuple[Any, None]:
        """The penalty's gradient, computed only where it is not zero."""
        nothing = jax.tree.map(jnp.zeros_like, params)
        violated = penalty(params, *chunk) > 0
        away = jax.lax.cond(violated, jax.grad(penalty), lambda *_: nothing, params, *chunk)
        return jax.tree.map(jnp.add, total, away), None

    start = (Costs.nothing(scheme, as_rows(x).x.dtype), jax.tree.map(jnp.zeros_like, params))
    whole = eqx.combine(params, static)
    size = chunk_size(whole)
    rows, shares = in_chunks(x, size, share)
    means, gradient = jax.lax.scan(body, start, (jnp.arange(len(shares)), rows, shares))[0]
    if whole.bijective:
        return means, gradient
    points, weights = (as_rows(x).around(), None) if around is None else around
    return means, jax.lax.scan(repel, gradient, in_chunks(points, size, weights))[0]


def guarded_update(
    optimiser: optax.GradientTransformation, carry: tuple[Any, Any], means: Costs, gradient: Any
) -> tuple[tuple[Any, Any], Bool[Array, ""]]:
    """(params, optimiser state) after one update, or as they were where anything is not finite."""
    params, state = carry
    finite = jnp.isfinite(means.objective(1.0, 1.0)) & jnp.isfinite(optax.tree.norm(gradient))
    updates, new_state = optimiser.update(gradient, state, params)
    new = (optax.apply_updates(params, updates), new_state)
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, carry), finite
