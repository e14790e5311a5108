"""OTT-JAX's neural duals, as its own examples set them: expectile-regularised, and the older one.

ott-jax[neural] is in the extra `bench`.
"""

import contextlib
import time
from typing import Any

import jax.numpy as jnp
import numpy as np

from maps.base import Map, Maps, Task

_BATCH = 1024


def solve(task: Task, name: str) -> Maps:
    """name: "enot" (ExpectileNeuralDual), "mlp" or "icnn" (W2NeuralDual)."""
    solver = _enot(task.dim) if name == "enot" else _neural_dual(task.dim, name)
    start, last = time.perf_counter(), {}

    def watch(step: int, found: Any) -> None:
        last["found"] = found
        if time.perf_counter() - start > task.seconds:
            raise TimeoutError

    streams = [
        (jnp.asarray(rows, jnp.float32) for rows in task.batches(k % 2 == 0, _BATCH, k))
        for k in range(4)
    ]
    with contextlib.suppress(TimeoutError):
        solver(*streams, callback=watch)
    found = last["found"]
    return Maps(_map(found, True), _map(found, False))


def _map(found: Any, forward: bool) -> Map:
    return lambda rows: np.asarray(
        found.transport(jnp.asarray(rows, jnp.float32), forward=forward), float
    )


def _enot(d: int) -> Any:
    """All of the paper's defaults: elu MLPs of 4 x 128, Adam at 3e-4, tau = 0.99, weight 1."""
    from ott.neural.methods.expectile_neural_dual import ExpectileNeuralDual

    return ExpectileNeuralDual(d, num_train_iters=10**7, valid_freq=10**7, log_freq=10**7)


def _neural_dual(d: int, network: str) -> Any:
    import optax
    from ott.neural.methods.neuraldual import W2NeuralDual
    from ott.neural.networks import icnn, potentials

    def build(is_potential: bool) -> Any:
        if network == "icnn":
            return icnn.ICNN(dim_data=d, dim_hidden=[64, 64, 64, 64])
        return potentials.PotentialMLP(dim_hidden=[128, 128, 128], is_potential=is_potential)

    return W2NeuralDual(
        d,
        build(True),
        build(network == "icnn"),
        optax.adam(1e-3, b1=0.5, b2=0.9),
        optax.adam(1e-3, b1=0.5, b2=0.9),
        num_train_iters=10**7,
        num_inner_iters=10 if network == "icnn" else 1,
        valid_freq=10**7,
        log_freq=10**7,
    )
