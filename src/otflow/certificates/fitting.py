"""Fitting an input-convex potential to pairs: regress its gradient, then ascend the dual."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from otflow.certificates.conjugate import fenchel_gap, maximisers
from otflow.certificates.convex import ConvexPotential, gaussian_potential, start
from otflow.parallel.batching import map_rows
from otflow.support.checks import check_count, check_number
from otflow.support.precision import cast, precision

_CHUNK = 25  # steps compiled into one call
_ROWS = 2**15  # most pairs used
_KEPT = 1000  # most pairs that choose


@dataclasses.dataclass(frozen=True)
class DualConfig:
    """How hard the dual potential is fitted. Any fit gives valid bounds; a better one, tight ones.

    Attributes:
        width: units of each of the two layers.
        regression_steps: Adam steps that regress grad u on the flow's map.
        ascent_steps: Adam steps that then raise the certified lower bound itself.
        batch_size: pairs a step.
        learning_rate: peak of the cosine schedule.
        newton_steps: Newton steps of the inner problem when the bound is evaluated.
        cg_steps: most conjugate-gradient steps of each.

    Raises:
        ValueError, TypeError: a field is out of its range.
    """

    width: int = 64
    regression_steps: int = 1500
    ascent_steps: int = 500
    batch_size: int = 1024
    learning_rate: float = 0.01
    newton_steps: int = 50
    cg_steps: int = 16

    def __post_init__(self) -> None:
        for name in ("width", "batch_size", "newton_steps", "cg_steps"):
            check_count(name, getattr(self, name))
        for name in ("regression_steps", "ascent_steps"):
            check_count(name, getattr(self, name), 0)
        check_number("learning_rate", self.learning_rate, positive=True)


def fit_dual(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "n d"],
    config: DualConfig,
    seconds: float,
    seed: int,
    directions: Float[np.ndarray, "k d"] | None = None,
) -> ConvexPotential:
    """An input-convex u, float32, that makes E[u(x) + u*(y) - <x, y>] small over the pairs.

    Regressed, then ascended; a tenth of the pairs, kept aside, chooses between the two and the
    Gaussian map, so that few pairs in a high dimension do no harm.

    Args:
        x, y: pairs, shape (n, d) each; the rows given are used to fit only.
        config: widths and numbers of steps.
        seconds: stop fitting after this time, whatever the steps left.
        seed: of the start and the batches.
        directions: unit vectors along which the map bends, see `start`; None for random ones.
    """
    rng = np.random.default_rng(seed)
    x, y = x[:_ROWS], y[:_ROWS]
    deadline = time.perf_counter() + seconds
    with precision("float32"):
        kept = max(len(x) // 10, 1)
        x, y, x_kept, y_kept = x[kept:], y[kept:], x[:kept], y[:kept]
        u = start(x, y, config.width, rng, directions)
        pairs = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
        found = [gaussian_potential(u, x, y)]
        batches = [_batches(rng, len(x), config, steps) for steps in _steps(config)]
        found.append(_regress(u, *pairs, config, batches[0], deadline - 0.5 * seconds))
        found.append(_ascend(found[-1], *pairs, config, batches[1], deadline))
    losses = [gaps(u, x_kept[:_KEPT], y_kept[:_KEPT], config).mean() for u in found]
    return found[int(np.argmin(np.nan_to_num(losses, nan=np.inf)))]


def _steps(config: DualConfig) -> tuple[int, int]:
    return config.regression_steps, config.ascent_steps


def gaps(
    u: ConvexPotential,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "n d"],
    config: DualConfig,
) -> Float[np.ndarray, " n"]:
    """A bound from above of u(x) + u*(y) - <x, y> at every pair, float64, shape (n,).

    Candidates of the inner problem come from float32; the bound at them is evaluated in float64.
    """
    candidates = _all_candidates(u, x, y, config)
    with precision("float64"):
        exact = cast(u, "float64")
        triples = np.column_stack([x, y, candidates]).astype(np.float64)
        return map_rows(lambda rows: _gaps(exact, jnp.asarray(rows)), triples)


def convex_values(u: ConvexPotential, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    """u at every row, float64, shape (n,)."""
    with precision("float64"):
        exact = cast(u, "float64")
        return map_rows(lambda rows: _values(exact, jnp.asarray(rows)), np.asarray(x, np.float64))


def _all_candidates(u, x, y, config: DualConfig) -> Float[np.ndarray, "n d"]:
    newton, cg = config.newton_steps, _cg_steps(u.dim, config)
    with precision("float32"):
        pairs = np.column_stack([x, y]).astype(np.float32)
        return map_rows(
            lambda rows: _candidates(u, jnp.asarray(rows), newton, cg),
            pairs,
            1024,
        )


def _cg_steps(dim: int, config: DualConfig) -> int:
    return min(config.cg_steps, dim)


@eqx.filter_jit
def _gaps(u: ConvexPotential, triples: Array) -> Array:
    x, y, best = jnp.split(triples, 3, 1)
    return fenchel_gap(u, x, y, best)


@eqx.filter_jit
def _values(u: ConvexPotential, x: Array) -> Array:
    return u.value(x)


@eqx.filter_jit
def _candidates(u: ConvexPotential, pairs: Array, newton: int, cg: int) -> Array:
    x, y = jnp.split(pairs, 2, 1)
    return maximisers(u, y, x, newton, cg, 1e-5)


def _batches(
    rng: np.random.Generator, n: int, config: DualConfig, steps: int
) -> Iterator[Int[np.ndarray, "chunk k"]]:
    """Row numbers of `steps` batches, a chunk at a time."""
    for _ in range(-(-steps // _CHUNK)):
        yield rng.integers(n, size=(_CHUNK, min(config.batch_size, n)))


@functools.lru_cache(maxsize=64)  # one object for equal settings, so that compiled code is reused
def _optimiser(learning_rate: float, steps: int) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(learning_rate, max(steps, 1), alpha=0.01)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.99))


def _regress(u, x, y, config, batches, deadline) -> ConvexPotential:
    """Least squares of grad u - y, in units of y's variance."""
    optimiser = _optimiser(config.learning_rate, config.regression_steps)
    state, scale = optimiser.init(u), jnp.var(y, axis=0).sum()
    for rows in batches:
        u, state = _regression_chunk(optimiser.update, u, state, x, y, scale, jnp.asarray(rows))
        if time.perf_counter() > deadline:
            break
    return u


@eqx.filter_jit
def _regression_chunk(update: Callable, u, state, x, y, scale, rows):
    def loss(u: ConvexPotential, x: Array, y: Array) -> Array:
        return jnp.sum((u.gradient(x) - y) ** 2) / (x.shape[0] * scale)

    def step(carry, k):
        u, state = carry
        updates, state = update(jax.grad(loss)(u, x[k], y[k]), state)
        return (eqx.apply_updates(u, updates), state), None

    return jax.lax.scan(step, (u, state), rows)[0]


def _ascend(u, x, y, config, batches, deadline) -> ConvexPotential:
    """Adam on the certified gap itself; every pair keeps its candidate from visit to visit."""
    optimiser = _optimiser(0.2 * config.learning_rate, config.ascent_steps)
    state, scale = optimiser.init(u), jnp.var(y, axis=0).sum()
    cg = _cg_steps(x.shape[1], config)
    candidates = jnp.asarray(_all_candidates(u, np.asarray(x), np.asarray(y), config))
    for rows in batches:
        u, state, candidates = _ascent_chunk(
            optimiser.update, cg, u, state, x, y, candidates, scale, jnp.asarray(rows)
        )
        if time.perf_counter() > deadline:
            break
    return u


@eqx.filter_jit
def _ascent_chunk(update: Callable, cg: int, u, state, x, y, candidates, scale, rows):
    def loss(u: ConvexPotential, x: Array, y: Array, best: Array) -> Array:
        gap = u.value(x) - u.value(best) - jnp.sum((x - best) * y, axis=1)
        return jnp.mean(gap) / scale

    def step(carry, k):
        u, state, candidates = carry
        best = jax.lax.stop_gradient(maximisers(u, y[k], candidates[k], 2, cg, 0.0))
        updates, state = update(jax.grad(loss)(u, x[k], y[k], best), state)
        return (eqx.apply_updates(u, updates), state, candidates.at[k].set(best)), None

    return jax.lax.scan(step, (u, state, candidates), rows)[0]
