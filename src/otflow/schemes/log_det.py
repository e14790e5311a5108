"""log det of symmetric positive definite matrices: exact for scoring, with a barrier to train."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from otflow.potentials.packed import apply, dense, packed_dim, pairs, sweep, unpack
from otflow.support.precision import default_rules

SWEPT = 16  # columns up to which sweeps over all points beat a call of LAPACK a point (measured)
BARRIER = 1e-3  # eigenvalue below which the barrier replaces the logarithm
MARGIN = 0.01  # eigenvalue that training asks for between and around the data


@jax.custom_jvp
def log_det(M: Float[Array, "n d d"]) -> Float[Array, " n"]:
    """log det M; -inf where M is not positive definite, NaN only where M itself is not finite.

    The gradient is the inverse of M where M is positive definite, and 0 elsewhere.
    """
    return _exact(M)[0]


def _exact(M: Array) -> tuple[Array, Array]:
    found, inverse = factorise(M)
    definite = ~jnp.isnan(found)
    finite = jnp.isfinite(M).all((1, 2))
    value = jnp.where(definite | ~finite, found, -jnp.inf)
    return value, jnp.where(definite[:, None, None], inverse, 0.0)


@jax.custom_jvp
def barrier_log_det(M: Float[Array, "n d d"]) -> Float[Array, " n"]:
    """log det M where all eigenvalues are at least BARRIER; else a smooth extension.

    The extension takes each log(eigenvalue) below BARRIER by its quadratic Taylor polynomial
    there: finite, concave, twice continuously differentiable, and steep enough that an optimiser
    is pushed back. It costs an eigendecomposition, paid only by batches that need it.
    """
    return _barrier(M)[0]


@jax.custom_jvp
def shortfall(M: Float[Array, "n d d"]) -> Float[Array, " n"]:
    """sum over eigenvalues below MARGIN of ((MARGIN - eigenvalue) / MARGIN)^2: 0 where M > MARGIN.

    A batch without such eigenvalues costs one Cholesky factorisation.
    """
    return _shortfall(M)[0]


@jax.custom_jvp
def packed_log_det(packed: Float[Array, "t n"]) -> Float[Array, " n"]:
    """log det of packed positive definite matrices; its gradient is their inverse."""
    return _packed(packed)[0]


def _packed(packed: Array) -> tuple[Array, Array]:
    found, inverse = factorise_packed(packed)
    rows, columns = pairs(inverse.shape[0])
    twice = np.where(rows == columns, 1, 2).astype(packed.dtype)  # both triangles
    return found, inverse[rows, columns] * twice[:, None]


def _shortfall(M: Array) -> tuple[Array, Array]:
    shifted = M - MARGIN * jnp.eye(M.shape[-1], dtype=M.dtype)
    nothing = (jnp.zeros(M.shape[0], M.dtype), jnp.zeros_like(M))
    fails = jnp.isnan(factorise(shifted)[0]).any()
    return jax.lax.cond(fails, _squares, lambda _: nothing, M)


def _squares(M: Array) -> tuple[Array, Array]:
    eigenvalues, U = jnp.linalg.eigh(M)
    q = jnp.maximum(MARGIN - eigenvalues, 0.0) / MARGIN
    slope = -2 * q / MARGIN
    return jnp.sum(q * q, axis=1), (U * slope[:, None, :]) @ jnp.swapaxes(U, 1, 2)


def _barrier(M: Array) -> tuple[Array, Array]:
    found, inverse = factorise(M)
    # 1 / |M^-1| bounds the smallest eigenvalue from below, so no low one is missed
    low = jnp.isnan(found) | (jnp.sum(inverse**2, axis=(1, 2)) > BARRIER**-2)
    return jax.lax.cond(low.any(), _extended, lambda _: (found, inverse), M)


def _has_slope(function: jax.custom_jvp, value_and_slope: Callable, axes: tuple[int, ...]) -> None:
    """Give a function of matrices, that sums over those axes, its derivative."""

    def jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        with default_rules():
            value, slope = value_and_slope(*primals)
        return value, jnp.sum(tangents[0] * slope, axis=axes)

    function.defjvp(jvp)


_has_slope(log_det, _exact, (1, 2))
_has_slope(barrier_log_det, _barrier, (1, 2))
_has_slope(shortfall, _shortfall, (1, 2))
_has_slope(packed_log_det, _packed, (0,))


def factorise_packed(packed: Float[Array, "t n"]) -> tuple[Array, Array]:
    """(log det, inverse (d, d, n)) of packed positive definite matrices."""
    if packed_dim(packed.shape[0]) <= SWEPT:
        return sweep(unpack(packed))
    found, inverse = factorise(dense(packed))
    return found, jnp.moveaxis(inverse, 0, -1)


def solve_packed(
    packed: Float[Array, "t n"], b: Float[Array, "n d"]
) -> tuple[Float[Array, " n"], Float[Array, "n d"]]:
    """(log det M, M^-1 b) of packed positive definite matrices; wide ones without an inverse."""
    if packed_dim(packed.shape[0]) <= SWEPT:
        found, inverse = factorise_packed(packed)
        return found, apply(inverse, b)
    L = jnp.linalg.cholesky(dense(packed))
    return _log_det_of(L), _substituted(L, b)


def factorise(M: Array) -> tuple[Array, Array]:
    """(log det, inverse) of each matrix; NaN log det where it is not positive definite."""
    d = M.shape[-1]
    if d == 1:
        return jnp.log(jnp.where(M[:, 0, 0] > 0, M[:, 0, 0], jnp.nan)), 1 / M
    if d == 2:  # closed form: a tenth of the time of LAPACK calls on tiny matrices
        det = M[:, 0, 0] * M[:, 1, 1] - M[:, 0, 1] * M[:, 1, 0]
        adjugate = jnp.stack([M[:, 1, 1], -M[:, 0, 1], -M[:, 1, 0], M[:, 0, 0]], axis=1)
        definite = (M[:, 0, 0] > 0) & (det > 0)
        inverse = adjugate.reshape(-1, 2, 2) / det[:, None, None]
        return jnp.log(jnp.where(definite, det, jnp.nan)), inverse
    if d <= SWEPT:
        found, inverse = sweep(jnp.moveaxis(M, 0, -1))
        return found, jnp.moveaxis(inverse, -1, 0)
    L = jnp.linalg.cholesky(M)
    identity = jnp.broadcast_to(jnp.eye(d, dtype=M.dtype), M.shape)
    half = jax.scipy.linalg.solve_triangular(L, identity, lower=True)
    return _log_det_of(L), jnp.swapaxes(half, 1, 2) @ half


def solve_definite(M: Float[Array, "n d d"], b: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """M^-1 b for each matrix; NaN or a wrong direction where it is not positive definite."""
    if M.shape[-1] <= SWEPT:
        return jnp.einsum("nij,nj->ni", factorise(M)[1], b)
    return _substituted(jnp.linalg.cholesky(M), b)


def _log_det_of(L: Float[Array, "n d d"]) -> Float[Array, " n"]:
    return 2 * jnp.sum(jnp.log(jnp.diagonal(L, axis1=1, axis2=2)), axis=1)


def _substituted(L: Float[Array, "n d d"], b: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """(L L')^-1 b."""
    half = jax.scipy.linalg.solve_triangular(L, b[..., None], lower=True)
    return jax.scipy.linalg.solve_triangular(L, half, lower=True, trans=1)[..., 0]


def _extended(M: Array) -> tuple[Array, Array]:
    eigenvalues, U = jnp.linalg.eigh(M)
    low = eigenvalues < BARRIER
    safe = jnp.where(low, BARRIER, eigenvalues)
    q = jnp.where(low, (eigenvalues - BARRIER) / BARRIER, 0.0)
    value = jnp.log(safe) + q - 0.5 * q * q
    slope = (1 - q) / safe
    return jnp.sum(value, axis=1), (U * slope[:, None, :]) @ jnp.swapaxes(U, 1, 2)
