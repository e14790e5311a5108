"""Independence Metropolis: chains whose proposals are independent draws near the target."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from otflow.support.precision import precision


class Accepted(NamedTuple):
    """Which proposal each state of each chain is, and the share of proposals that were taken."""

    proposal: Int[np.ndarray, "chains n"]
    rate: float


def independence_metropolis(log_weights: Float[np.ndarray, "chains n"], seed: int) -> Accepted:
    """Chains that leave the target invariant, whatever law the proposals come from.

    A proposal is taken with probability min(1, w'/w). Every chain starts at its first proposal.

    Args:
        log_weights: log of target over proposal density at each proposal, up to one constant; -inf
            where the target has no density.
        seed: of the decisions.

    Raises:
        ValueError: NaN or +inf among the weights, or another number of axes.

    Source: Tierney, Markov chains for exploring posterior distributions (1994).
    """
    log_w = np.asarray(log_weights, np.float64)
    if log_w.ndim != 2 or log_w.size == 0:
        raise ValueError(f"log_weights: expected shape (chains, n); got {log_w.shape}.")
    if np.isnan(log_w).any() or np.isposinf(log_w).any():
        raise ValueError("log_weights: expected finite numbers or -inf; got others.")
    with precision("float64"):
        uniform = jax.random.uniform(jax.random.key(seed), log_w.shape)
        index, taken = _chains(jnp.asarray(log_w), jnp.log(uniform))
    rate = float(np.mean(taken[:, 1:])) if log_w.shape[1] > 1 else 1.0
    return Accepted(np.asarray(index), rate)


@eqx.filter_jit
def _chains(log_w: Float[Array, "c n"], log_u: Float[Array, "c n"]) -> tuple[Array, Array]:
    def step(state: tuple[Array, Array], given: tuple) -> tuple[tuple, tuple]:
        index, held = state
        number, proposed, level = given
        take = (level < proposed - held) | jnp.isneginf(held)
        state = jnp.where(take, number, index), jnp.where(take, proposed, held)
        return state, (state[0], take)

    numbers = jnp.arange(log_w.shape[1])
    start = (jnp.zeros(len(log_w), numbers.dtype), log_w[:, 0])
    _, (index, taken) = jax.lax.scan(step, start, (numbers, log_w.T, log_u.T))
    return index.T, taken.T
