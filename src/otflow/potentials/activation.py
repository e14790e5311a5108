"""The activation of SPEC 2 and its derivative, from one exponential."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_jvp
def sigma_and_tanh(
    u: Float[Array, "*shape"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """sigma(u) = |u| + log(1 + exp(-2|u|)) = log(2 cosh u), and sigma'(u) = tanh(u)."""
    e = jnp.exp(-2 * jnp.abs(u))
    return jnp.abs(u) + jnp.log1p(e), jnp.copysign((1 - e) / (1 + e), u)


@sigma_and_tanh.defjvp
def _sigma_and_tanh_jvp(primals, tangents):
    (u,), (du,) = primals, tangents
    sigma, tanh = sigma_and_tanh(u)
    return (sigma, tanh), (tanh * du, (1 - tanh * tanh) * du)


@jax.custom_jvp
def tanh_of(u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """sigma'(u) alone, where sigma itself is not needed."""
    e = jnp.exp(-2 * jnp.abs(u))
    return jnp.copysign((1 - e) / (1 + e), u)


@tanh_of.defjvp
def _tanh_of_jvp(primals, tangents):
    (u,), (du,) = primals, tangents
    tanh = tanh_of(u)
    return tanh, (1 - tanh * tanh) * du
