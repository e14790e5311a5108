"""Training on all devices: a shard of the rows on each, many optimiser steps in one call."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int

from otflow.devices import device_number, everywhere, on_shards, place, row_mesh, total
from otflow.objective import Costs
from otflow.potentials.base import AbstractPotential
from otflow.schemes.base import AbstractScheme
from otflow.targets import AbstractTarget
from otflow.training.rows import Rows, as_rows
from otflow.training.step import batch_gradient, guarded_update, mean_costs


class StepLog(eqx.Module):
    """Mean costs of each step's batch, before its update, and whether the step was finite."""

    costs: Costs
    finite: Bool[Array, " steps"]


class ShardedRows(NamedTuple):
    """Rows cut over the devices of a mesh, and the share of each in the mean of all."""

    rows: Rows
    share: Any  # (n,), an array of the mesh
    mesh: Mesh

    @staticmethod
    def of(rows: Rows, index: Int[np.ndarray, "*steps n"] | None = None) -> "ShardedRows":
        """All rows, or a batch for each of several steps; some may come twice, with share 0.

        Args:
            rows: on the host.
            index: row numbers, (n,) or (steps, n).
        """
        index = np.arange(rows.n) if index is None else index
        n, steps = index.shape[-1], index.ndim - 1
        mesh = row_mesh(n)
        padding = -n % mesh.size
        index = np.pad(index, ((0, 0),) * steps + ((0, padding),), mode="edge")
        found = jax.tree.map(lambda array: np.asarray(array)[index], rows)
        share = np.pad(np.full(n, 1 / n, found.x.dtype), (0, padding))
        return ShardedRows(place(found, mesh, steps), place(share, mesh), mesh)


def sharded_costs(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    target: AbstractTarget,
    sharded: ShardedRows,
) -> Costs:
    """`mean_costs`, every device its shard."""
    return _sharded_costs(everywhere((potential, scheme, target), sharded.mesh), sharded)


@eqx.filter_jit
def _sharded_costs(shared: tuple, sharded: ShardedRows) -> Costs:
    def local(potential: Any, scheme: Any, target: Any, rows: Rows, share: Array) -> Costs:
        return total(mean_costs(potential, scheme, target, rows, share))

    return on_shards(local, sharded.mesh, shared, (sharded.rows, sharded.share), (0, 0))


def make_block(
    scheme: AbstractScheme,
    target: AbstractTarget,
    optimiser: optax.GradientTransformation,
    alpha: float,
    beta: float,
) -> Callable[..., tuple[Any, Any, StepLog]]:
    """A compiled function that takes as many optimiser steps as it is given batches.

    It maps (params, static, optimiser state, data on the host, row numbers (steps, batch), number
    of the first step) to (params, optimiser state, StepLog). Every device takes a shard of each
    batch, and gradients are summed over them. A step whose objective or gradient is not finite
    changes nothing and is flagged. Fewer batches than in an earlier call run in its program.
    """

    def local(
        params: Any, static: Any, state: Any, span: Array, batches: Rows, share: Array
    ) -> tuple[tuple[Any, Any], StepLog]:
        first, n_steps = span

        def step(
            carry: tuple[Any, Any], number: Array, batch: Rows
        ) -> tuple[tuple[Any, Any], StepLog]:
            own = scheme.folded(first + number).folded(device_number())
            means, gradient = total(
                batch_gradient(own, target, alpha, beta, carry[0], static, batch, share)
            )
            carry, finite = guarded_update(optimiser, carry, means, gradient)
            return carry, StepLog(means, finite)

        def nothing(
            carry: tuple[Any, Any], number: Array, batch: Rows
        ) -> tuple[tuple[Any, Any], StepLog]:
            zero = jnp.zeros((), batch.x.dtype)
            return carry, StepLog(Costs(zero, zero, zero), jnp.ones((), bool))

        def body(carry: Any, given: tuple[Array, Rows]) -> tuple[tuple[Any, Any], StepLog]:
            return jax.lax.cond(given[0] < n_steps, step, nothing, carry, *given)

        numbers = jnp.arange(batches.x.shape[0])
        return jax.lax.scan(body, (params, state), (numbers, batches))

    @eqx.filter_jit
    def compiled(params: Any, static: Any, state: Any, span: Array, batches: ShardedRows) -> Any:
        shared, rows = (params, static, state, span), (batches.rows, batches.share)
        return on_shards(local, batches.mesh, shared, rows, (1, 0))

    most = 0

    def block(
        params: Any,
        static: Any,
        state: Any,
        data: Any,
        rows: Int[np.ndarray, "steps batch"],
        first: int = 0,
    ) -> tuple[Any, Any, StepLog]:
        nonlocal most
        n_steps = len(rows)
        most = max(most, n_steps)
        rows = np.pad(rows, ((0, most - n_steps), (0, 0)), mode="edge")
        batches = ShardedRows.of(as_rows(data), rows)
        span = jnp.array([first, n_steps])
        shared = everywhere((params, static, state, span), batches.mesh)
        (params, state), log = compiled(*shared, batches)
        return params, state, jax.tree.map(lambda values: values[:n_steps], log)

    return block
