"""Training on all devices: a shard of the rows on each, many optimiser steps in one call."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool

from otflow.data.rows import Rows
from otflow.flow.objective import Costs
from otflow.parallel.devices import device_number, everywhere, job_mesh, on_shards, place, total
from otflow.potentials.base import AbstractPotential
from otflow.schemes.base import AbstractScheme
from otflow.support.compiling import hot_jit
from otflow.targets import AbstractTarget
from otflow.training.step import ValidCosts, batch_gradient, guarded_update, valid_costs

_PROGRAMS = 16  # kept, with their compiled code


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
    def of(rows: Rows, part: bool = False, mesh: Mesh | None = None) -> "ShardedRows":
        """All rows, or a batch for each of several steps; some may come twice, with share 0.

        Args:
            rows: on the host, arrays (n, ...) or (steps, n, ...).
            part: these are this process's own rows, as many as every other one has.
            mesh: by default `job_mesh` for so many rows.
        """
        axis = rows.x.ndim - 2
        n = rows.x.shape[axis]
        mesh = job_mesh(n) if mesh is None else mesh
        processes = jax.process_count() if part else 1
        index = np.minimum(np.arange(n + -n % (mesh.size // processes)), n - 1)
        padded = jax.tree.map(lambda array: np.take(np.asarray(array), index, axis), rows)
        share = np.full(len(index), 1 / (n * processes), rows.x.dtype)
        share[n:] = 0
        return ShardedRows(place(padded, mesh, axis, part), place(share, mesh, 0, part), mesh)


def sharded_costs(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    target: AbstractTarget,
    sharded: ShardedRows,
) -> ValidCosts:
    """`valid_costs`, every device its shard."""
    return _sharded_costs(everywhere((potential, scheme, target), sharded.mesh), sharded)


@hot_jit
def _sharded_costs(shared: tuple, sharded: ShardedRows) -> ValidCosts:
    def local(potential: Any, scheme: Any, target: Any, rows: Rows, share: Array) -> ValidCosts:
        return total(valid_costs(potential, scheme, target, rows, share))

    return on_shards(local, sharded.mesh, shared, (sharded.rows, sharded.share), (0, 0))


def _make_program(
    scheme: AbstractScheme, optimiser: optax.GradientTransformation, alpha: float, beta: float
) -> Callable[..., Any]:
    """A jitted function of several steps, see `make_block`."""

    def local(
        params: Any,
        static: Any,
        state: Any,
        span: Array,
        target: Any,
        batches: Rows,
        share: Array,
        around: Rows,
        around_share: Array,
    ) -> tuple[tuple[Any, Any], StepLog]:
        first, n_steps = span

        def step(
            carry: tuple[Any, Any], number: Array, batch: Rows, points: Rows
        ) -> tuple[tuple[Any, Any], StepLog]:
            own = scheme.folded(first + number).folded(device_number())
            given = (batch, share, (points, around_share))
            means, gradient = total(
                batch_gradient(own, target, alpha, beta, carry[0], static, *given)
            )
            carry, finite = guarded_update(optimiser, carry, means, gradient)
            return carry, StepLog(means, finite)

        def nothing(
            carry: tuple[Any, Any], number: Array, batch: Rows, points: Rows
        ) -> tuple[tuple[Any, Any], StepLog]:
            return carry, StepLog(Costs.nothing(scheme, batch.x.dtype), jnp.ones((), bool))

        def body(carry: Any, given: tuple[Array, Rows, Rows]) -> tuple[tuple[Any, Any], StepLog]:
            return jax.lax.cond(given[0] < n_steps, step, nothing, carry, *given)

        numbers = jnp.arange(batches.x.shape[0])
        return jax.lax.scan(body, (params, state), (numbers, batches, around))

    @hot_jit
    def compiled(
        params: Any,
        static: Any,
        state: Any,
        span: Array,
        target: Any,
        batches: ShardedRows,
        around: ShardedRows,
    ) -> Any:
        shared = (params, static, state, span, target)
        rows = (batches.rows, batches.share, around.rows, around.share)
        return on_shards(local, batches.mesh, shared, rows, (1, 0, 1, 0))

    return compiled


# a fit like an earlier one compiles nothing
_kept_program = functools.lru_cache(_PROGRAMS, typed=True)(_make_program)


def make_block(
    scheme: AbstractScheme,
    target: AbstractTarget,
    optimiser: optax.GradientTransformation,
    alpha: float,
    beta: float,
) -> Callable[..., tuple[Any, Any, StepLog]]:
    """A compiled function that takes as many optimiser steps as it is given batches.

    It maps (params, static, optimiser state, batches, number of the first step) to (params,
    optimiser state, StepLog on the host). The batches are rows on the host, arrays (steps, batch,
    ...); with `part` this process's part of them. Every device takes a shard of each batch, and
    gradients are summed over them. `towards` is a target of the same form to aim at instead, for
    one call. A step whose objective or gradient is not finite changes nothing and is flagged. Fewer
    batches than in an earlier call run in its program. Programs are kept for the process: the same
    scheme, optimiser and weights have one for all fits of a shape.
    """
    try:
        compiled = _kept_program(scheme, optimiser, alpha, beta)
    except TypeError:  # a scheme that holds arrays has no hash
        compiled = _make_program(scheme, optimiser, alpha, beta)
    most = 0

    def block(
        params: Any,
        static: Any,
        state: Any,
        batches: Rows,
        first: int = 0,
        part: bool = False,
        towards: AbstractTarget | None = None,
    ) -> tuple[Any, Any, StepLog]:
        nonlocal most
        n_steps = batches.n
        most = max(most, n_steps)
        batches = batches.take(np.minimum(np.arange(most), n_steps - 1))
        given = ShardedRows.of(batches, part)
        folds = not eqx.combine(params, static).bijective
        around = ShardedRows.of(batches.around(), part, given.mesh) if folds else given
        span = np.array([first, n_steps])
        aim = target if towards is None else towards
        shared = everywhere((params, static, state, span, aim), given.mesh)
        (params, state), log = compiled(*shared, given, around)
        return params, state, jax.tree.map(lambda values: values[:n_steps], jax.device_get(log))

    return block
