"""A density known up to a constant as the target of a flow (SPEC 8)."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from otflow.data.preprocessing import ColumnMap
from otflow.potentials.base import check_points
from otflow.support.files import one_line
from otflow.targets import AbstractTarget, Moments, StandardNormal

_PROBE = 3  # points of a batch whose shape is asked for
_UNTRACEABLE = (jax.errors.JAXTypeError, jax.errors.JAXIndexError)


class LogDensity:
    """A user's log-density, known up to a constant, of n points at once.

    JAX keeps one program for one function: two objects of the same are equal.

    Args:
        function: JAX, of one point (d,) to a scalar, or of points (n, d) to (n,).
        dim: d.

    Raises:
        TypeError: it is not callable, or JAX cannot trace it.
        ValueError: it takes neither, or gives another shape or no real numbers.
    """

    def __init__(self, function: Callable[[Array], Array], dim: int):
        if not callable(function):
            raise TypeError(f"log_density: expected a function; got {type(function).__name__}.")
        self.function, self.dim = function, dim
        self.by_point = _takes_a_point(function, dim)

    def __call__(self, points: Float[Array, "n d"]) -> Float[Array, " n"]:
        """log rho1 + log Z at every point, shape (n,)."""
        return jax.vmap(self.function)(points) if self.by_point else self.function(points)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogDensity) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[int, int]:
        return id(self.function), self.dim


class OnLine(eqx.Module):
    """The log-density of y on the line, from which parameters come by the inverse of `columns`."""

    density: LogDensity = eqx.field(static=True)
    columns: ColumnMap

    def __call__(self, y: Float[Array, "n d"]) -> Float[Array, " n"]:
        """log p + log Z of y, shape (n,)."""
        theta, log_det = from_line(self.columns, y)
        return self.density(theta) + log_det


def _takes_a_point(function: Callable[[Array], Array], dim: int) -> bool:
    """Whether it maps (d,) to a scalar; otherwise it maps (n, d) to (n,)."""
    told, kind = [], jnp.zeros(()).dtype
    for shape, wanted in (((dim,), ()), ((_PROBE, dim), (_PROBE,))):
        try:
            found = jax.eval_shape(lambda x: function(x), jax.ShapeDtypeStruct(shape, kind))
        except _UNTRACEABLE as error:
            raise TypeError(
                "log_density: expected a function of jax.numpy that JAX can trace; got "
                f"{type(error).__name__}: {one_line(error)}"
            ) from error
        except Exception as error:
            told.append(f"an error for shape {shape} ({one_line(error)})")
            continue
        if getattr(found, "shape", None) != wanted:
            got = getattr(found, "shape", type(found).__name__)
            told.append(f"{got} for shape {shape}")
        elif found.dtype != kind:
            raise ValueError(f"log_density: expected {kind}, as its argument; got {found.dtype}.")
        else:
            return not wanted
    raise ValueError(
        f"log_density: expected a scalar for a point of shape ({dim},), or shape (n,) for points "
        f"of shape (n, {dim}); got {' and '.join(told)}."
    )


def from_line(
    columns: ColumnMap, y: Float[Array, "n d"]
) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
    """`ColumnMap.inverse` within JAX, and log|det| of its Jacobian, nats."""
    parts, log_det = [], jnp.zeros(y.shape[0], y.dtype)
    if columns.is_identity:
        return y, log_det
    each = zip(columns.lower, columns.upper, columns.tails, strict=True)
    for j, (low, high, at) in enumerate(each):
        v = y[:, j]
        if low is not None and high is not None:
            both = jax.nn.log_sigmoid(v) + jax.nn.log_sigmoid(-v)
            log_det = log_det + both + np.log(high - low)
            v = low + (high - low) * jax.nn.sigmoid(v)
        elif low is not None:
            log_det, v = log_det + v, low + jnp.exp(v)
        elif high is not None:
            log_det, v = log_det - v, high - jnp.exp(-v)
        elif at is not None:
            far = jnp.abs(v)  # log cosh without overflow
            log_det = log_det + far + jnp.log1p(jnp.exp(-2 * far)) + np.log(at[1] / 2)
            v = at[0] + at[1] * jnp.sinh(v)
        parts.append(_inside(v, low, high))
    return jnp.stack(parts, axis=1), log_det


def _inside(v: Float[Array, " n"], low: float | None, high: float | None) -> Float[Array, " n"]:
    """Strictly between the bounds, where rounding ends on one."""
    if low is None and high is None:
        return v
    return jnp.clip(v, _beside(low, np.inf, v.dtype), _beside(high, -np.inf, v.dtype))


def _beside(bound: float | None, towards: float, dtype: Any) -> Any:
    """The next number, none of the smallest ones, which XLA takes for 0; None for no bound."""
    if bound is None:
        return None
    kind, tiny = np.dtype(dtype).type, np.finfo(dtype).tiny
    found = np.nextafter(kind(bound), kind(towards))
    return found if abs(found) >= tiny else np.copysign(tiny, towards)


class Unnormalised(AbstractTarget):
    """The law of z for y = shift + factor z on the line, known up to a constant.

    `tempered` is the share of N(0, I) in the logarithm: a warm start goes from 1 to 0.

    Args:
        known: the log-density of y, up to log Z.
        shift, factor: of a Gaussian near the law of y: its mean and a root of its covariance.
        log_constant: subtracted from the log-density: an estimate of log Z.
        tempered: in [0, 1].
    """

    known: OnLine
    shift: Float[Array, " d"]
    factor: Float[Array, "d d"]
    log_constant: Float[Array, ""]
    tempered: Float[Array, ""]

    @property
    def dim(self) -> int:
        """d."""
        return self.shift.shape[0]

    def log_prob(self, y: Float[Array, "n d"]) -> Float[Array, " n"]:
        """log rho1 + log Z - log_constant, shape (n,), of z."""
        z = check_points(y, self.dim, "y")
        known = self.known(self.shift + z @ self.factor.T) - self.log_constant
        known = known + jnp.linalg.slogdet(self.factor)[1]
        normal = StandardNormal(self.dim).log_prob(z)
        return (1 - self.tempered) * known + self.tempered * normal

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """No draws.

        Raises:
            ValueError: always: nothing is known of this law but its log-density.
        """
        raise ValueError("target: expected one that can be sampled; got Unnormalised.")

    def moments(self) -> Moments | None:
        """None: not known."""
        return None

    def merged(self, share: float) -> "Unnormalised":
        """The warm start's law: `share` of N(0, I) in the logarithm."""
        return eqx.tree_at(lambda t: t.tempered, self, jnp.asarray(share, self.shift.dtype))


def unnormalised(known: OnLine, shift: Any, factor: Any, log_constant: float = 0.0) -> Unnormalised:
    """The target in JAX's default precision, not tempered."""
    arrays = (jnp.asarray(a, float) for a in (shift, factor, log_constant, 0.0))
    return Unnormalised(known, *arrays)
