"""Symmetric matrices by their upper triangles, row after row: t = d (d + 1) / 2 numbers each.

Points stand in columns, (t, n): half the products of full matrices, and loops over long rows.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def packed_size(dim: int) -> int:
    """t of d x d matrices."""
    return dim * (dim + 1) // 2


def packed_dim(size: int) -> int:
    """d of matrices of t numbers."""
    return (math.isqrt(8 * size + 1) - 1) // 2


@jax.custom_jvp
def squares(v: Float[Array, "*k d n"]) -> Float[Array, "*k t n"]:
    """v v' of each column."""
    rows, columns = pairs(v.shape[-2])
    return v[..., rows, :] * v[..., columns, :]


@jax.custom_jvp
def summed_squares(weights: Float[Array, " k"], v: Float[Array, "k d n"]) -> Float[Array, "t n"]:
    """sum_k weights_k v_k v_k' of each column, without the k terms."""
    rows, columns = pairs(v.shape[1])
    return jnp.sum((weights[:, None, None] * v)[:, rows] * v[:, columns], axis=0)


@squares.defjvp
def _squares_jvp(primals, tangents):
    (v,), (dv,) = primals, tangents
    return squares(v), _both_ways(dv[..., :, None, :] * v[..., None, :, :])


@summed_squares.defjvp
def _summed_squares_jvp(primals, tangents):
    (weights, v), (dw, dv) = primals, tangents
    moved = weights[:, None, None] * dv + (0.5 * dw)[:, None, None] * v
    crossed = jnp.sum(moved[:, :, None] * v[:, None], axis=0)
    return summed_squares(weights, v), _both_ways(crossed)


def _both_ways(M: Float[Array, "*k d d n"]) -> Float[Array, "*k t n"]:
    """M + M', packed, by a scatter: so its transpose, which training needs, has none."""
    d, n = M.shape[-2:]
    twice = (1 + np.eye(d, dtype=M.dtype))[..., None]  # the diagonal comes once
    start = jnp.zeros((*M.shape[:-3], packed_size(d), n), M.dtype)
    return start.at[..., _places(d), :].add(twice * M)


def pack(M: Float[Array, "n d d"]) -> Float[Array, "t n"]:
    """The upper triangles."""
    rows, columns = pairs(M.shape[-1])
    return M[:, rows, columns].T


def unpack(packed: Float[Array, "t n"]) -> Float[Array, "d d n"]:
    """The full matrices, points last."""
    return packed[_places(packed_dim(packed.shape[0]))]


@functools.cache
def pairs(dim: int) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " t"]]:
    """Row and column of each number of the packed form."""
    rows, columns = np.triu_indices(dim)  # of 64 bits they trip over a change of precision
    return rows.astype(np.int32), columns.astype(np.int32)


@functools.cache
def _places(dim: int) -> Int[np.ndarray, "d d"]:
    """Where each entry of a matrix stands in its packed form."""
    found = np.zeros((dim, dim), np.int32)
    found[pairs(dim)] = np.arange(packed_size(dim))
    return np.maximum(found, found.T)


def dense(packed: Float[Array, "t n"]) -> Float[Array, "n d d"]:
    """The full matrices, points first."""
    return jnp.moveaxis(unpack(packed), -1, 0)


def apply(M: Float[Array, "d d n"], v: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """M v of each point."""
    return jnp.sum(M * v.T, axis=1).T


def sweep(M: Float[Array, "d d n"]) -> tuple[Float[Array, " n"], Float[Array, "d d n"]]:
    """(log det, inverse) by Gauss-Jordan in place; NaN where a matrix is not positive definite.

    Without pivots, which symmetric positive definite matrices do not need. All points go through
    an elimination together: three times as fast as a call of LAPACK a point where d is small.
    """
    d = M.shape[0]

    def eliminate(k: Array | int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        M, total = state
        own = jnp.arange(d)[:, None] == k
        column = jax.lax.dynamic_index_in_dim(M, k, 1, keepdims=False)
        row = jax.lax.dynamic_index_in_dim(M, k, 0, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(row, k, 0, keepdims=False)
        row = jnp.where(own, 1.0, row) / pivot
        column = jnp.where(own, -1.0, column)
        rest = jnp.where(own[:, None] | own[None], 0.0, M)
        return rest - column[:, None] * row, total + jnp.log(jnp.where(pivot > 0, pivot, jnp.nan))

    state = (M, jnp.zeros(M.shape[-1], M.dtype))
    if d <= 3:
        for k in range(d):
            state = eliminate(k, state)
    else:
        state = jax.lax.fori_loop(0, d, eliminate, state)
    return state[1], state[0]
