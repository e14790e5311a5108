"""How many parameters the data effectively fit: the sandwich of curvature and gradient noise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from otflow.flow.flow import Flow
from otflow.support.precision import precision
from otflow.training.natural import MOST_PARAMETERS, PointModel
from otflow.training.step import split_trainable

_CHUNK = 256
_RANK = 1e-9  # eigenvalues of the curvature below this share of the largest count as null


def effective_parameters(flow: Flow, x: Float[np.ndarray, "n d"], alpha: float) -> float:
    """p_eff = tr(H^+ S) / alpha at the flow's parameters.

    H is the Hessian of the mean objective transport + alpha nll over the rows and S the covariance
    of its gradient per row. For minimisers theta_N of the loss of N rows, both J(theta_N) - min J
    and min J - J_N(theta_N) are alpha p_eff / (2N) to first order (SPEC 5; Akaike's argument, with
    Takeuchi's correction for a model that is not exact).

    Args:
        flow: trained, near the minimum.
        x: (n, d) rows of the population, more than parameters.
        alpha: the penalty it was trained with.

    Raises:
        ValueError: more parameters than a dense Hessian takes.
    """
    with precision("float64"):
        params, static = split_trainable(flow.potential)
        flat, unravel = ravel_pytree(params)
        if flat.size > MOST_PARAMETERS // 4:
            raise ValueError(
                f"flow: expected at most {MOST_PARAMETERS // 4} parameters; got {flat.size}."
            )
        model = PointModel(
            lambda flat: eqx.combine(unravel(flat), static), flow.scheme, flow.target
        )
        n = max(1, len(x) // _CHUNK)
        rows = jnp.asarray(x[: n * _CHUNK]).reshape(n, -1, x.shape[1])
        hessian, noise = jax.jit(lambda flat: _moments(model, alpha, flat, rows))(flat)
    eigenvalues, axes = np.linalg.eigh(np.asarray(hessian))
    kept = eigenvalues > _RANK * eigenvalues[-1]
    along = np.einsum("pk,pq,qk->k", axes, np.asarray(noise), axes)
    return float((along[kept] / eigenvalues[kept]).sum() / alpha)


def _moments(
    model: PointModel, alpha: float, flat: Array, rows: Float[Array, "k c d"]
) -> tuple[Float[Array, "p p"], Float[Array, "p p"]]:
    def point(flat: Array, x: Array) -> Array:
        nll, transport = model(flat, x[None])
        return jnp.where(jnp.isfinite(nll[0]), transport[0] + alpha * nll[0], 0.0)

    def chunk(total: tuple, x: Array) -> tuple[tuple, None]:
        gradients = jax.vmap(jax.grad(point), (None, 0))(flat, x)
        mean = jax.grad(lambda flat: jnp.mean(jax.vmap(point, (None, 0))(flat, x)))
        parts = (jax.jacrev(mean)(flat), gradients.T @ gradients / len(x), gradients.mean(axis=0))
        return jax.tree.map(jnp.add, total, parts), None

    p = flat.size
    zero = (jnp.zeros((p, p)), jnp.zeros((p, p)), jnp.zeros(p))
    (hessian, second, mean), _ = jax.lax.scan(chunk, zero, rows)
    k = rows.shape[0]
    return hessian / k, second / k - jnp.outer(mean / k, mean / k)
