"""grad T of a flow by automatic differentiation: a second opinion on its own Jacobians."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from otflow.flow.flow import Flow
from otflow.parallel.batching import map_rows
from otflow.support.precision import cast, precision


def jacobians(flow: Flow, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d d"]:
    """grad T at every row by automatic differentiation of the map, float64, shape (n, d, d).

    Independent of the flow's own log-determinant and of the potential's Hessian.
    """
    exact = cast(flow, "float64")
    with precision("float64"):
        return map_rows(lambda rows: _jacobians(exact, jnp.asarray(rows)), x, 64)


@eqx.filter_jit
def _jacobians(flow: Flow, x: Array) -> Array:
    def one(point: Array) -> Array:
        return flow.scheme.push(flow.potential, point[None]).points[0]

    return jax.vmap(jax.jacrev(one))(x)
