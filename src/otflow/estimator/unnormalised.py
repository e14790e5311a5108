"""From a log-density known up to a constant to draws with a certificate (SPEC 8)."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from otflow.certificates.evidence import log_mean
from otflow.data.batches import NormalBatches
from otflow.data.columns import make_column_map
from otflow.data.rows import Rows
from otflow.estimator.fitting import raise_if_stopped
from otflow.estimator.posterior import Posterior
from otflow.flow.pushed_normal import PushedNormal
from otflow.flow.unnormalised import LogDensity, OnLine, Unnormalised, unnormalised
from otflow.parallel.devices import use_all_cores
from otflow.potentials import ConvexStages, GaussianBase
from otflow.schemes import Conforming
from otflow.support.checks import check_array, check_count, check_number
from otflow.support.files import one_line
from otflow.support.precision import precision
from otflow.targets import StandardNormal
from otflow.training import NaturalConfig, TrainingConfig, TrainingResult, Watch, polish, train
from otflow.training.checkpoint import Checkpoint, digest
from otflow.training.gaussian_start import GaussianStart, gaussian_start

_SHARES = (1.0, 0.3, 0.1, 0.03)  # of E, for Gaussians ever wider
_WORTH = 0.2  # nats of log Z that a wider start has to find, beyond its sampling error
_STRAYED = 0.35  # log growth a step of a deviation that is still on its way
_STILL = 0.5  # deviations a step of a mean that is
_START_DRAWS, _VALIDATION = 2**13, 2**11
_NATURAL_ROWS = 2000


def fit_unnormalised(
    log_density: Callable[[Array], Array],
    dim: int,
    *,
    names: Sequence[str] | None = None,
    bounds: Any = None,
    start: Any = 0.0,
    scale: Any = 1.0,
    alpha: float = 1000.0,
    n_steps: int = 4,
    width: int = 64,
    max_iter: int = 1000,
    natural_iter: int = 0,
    batch_size: int = 256,
    learning_rate: float = 0.02,
    merging: float = 0.5,
    seed: int = 0,
    dtype: str = "float64",
    verbose: bool = True,
    **watch: Any,
) -> Posterior:
    """A flow from N(0, I) to a density that is known up to a constant: a posterior, an energy.

    A Gaussian is fitted first, by natural gradients; in its coordinates convex stages minimise
    transport + alpha E[E(T(x)) - log det grad T(x)], the density's share of the target growing from
    0 (SPEC 8). Wider Gaussians, fitted to flatter densities, are the start where their weights find
    more of Z: several modes within reach are then all found.

    Args:
        log_density: JAX, log p up to a constant in nats, of one point (d,) or of points (n, d).
        dim: d.
        names: of the parameters; x0, x1, ... by default.
        bounds: parameter -> (lower, upper), each a number or None; by name or number. The density
            is that of the bounded parameters; no Jacobian is needed.
        start, scale: mean and deviation of the first Gaussian, a number or one a parameter; on the
            line, for bounded parameters of their logarithm or logit.
        alpha: weight of the KL, > 0. In coordinates in which the Gaussian is N(0, I), the transport
            makes next to no difference to the density at 1000.
        n_steps: K, convex stages.
        width: m, ridges a stage.
        max_iter: most first-order steps.
        natural_iter: natural-gradient steps after them, for up to 8,000 parameters.
        batch_size: draws a step, every one fresh.
        learning_rate: its peak.
        merging: share of max_iter in which the density's share grows.
        seed: of everything random.
        dtype: "float64" or "float32", of the log-density too.
        verbose: show a progress bar (on a terminal only).
        watch: checkpoint, checkpoint_every, resume, on_validation: as of `OTFlow.fit`; a checkpoint
            knows its log-density by the Gaussian that is fitted to it.

    Raises:
        TypeError, ValueError: bad arguments; a log-density that is no JAX function, has another
            shape, is not finite where the Gaussians are, or seems to have no finite integral.
        OSError: the checkpoint cannot be written, or holds a run and `resume` is not set.
        KeyboardInterrupt, TrainingDivergedError: Ctrl-C, or the objective became non-finite; once
            the Gaussian is fitted, `fitted` of the exception is the posterior at its best so far.
    """
    began = time.perf_counter()
    check_count("dim", dim)
    check_count("seed", seed, 0)
    check_count("natural_iter", natural_iter, 0)
    told = _names(names, dim)
    columns = make_column_map(bounds, None, np.zeros((1, dim)), told)
    mean, deviation = _each("start", start, dim), _each("scale", scale, dim)
    if (deviation <= 0).any():
        raise ValueError(f"scale: expected numbers > 0; got {deviation.min()}.")
    check_number("alpha", alpha, positive=True)
    config = TrainingConfig(
        alpha=alpha,
        max_iter=max_iter,
        batch_size=batch_size,
        learning_rate=learning_rate,
        merging=merging,
        seed=seed,
        clip_norm=10.0 * max(1.0, float(alpha)),
    )
    scheme, watching = Conforming(n_steps), Watch(**watch)
    check_count("width", width)
    use_all_cores()
    with precision(dtype):
        density = LogDensity(log_density, dim)
        known = OnLine(density, columns)
        check_density(known, mean, deviation, seed)
        gaussian, log_z = covering_gaussian(known, mean, deviation, seed)
        target = unnormalised(known, gaussian.mean, gaussian.factor, log_z)
        rest = GaussianBase.solve(np.zeros(dim), np.eye(dim), 1.0)
        potential = ConvexStages.create(rest, n_steps, width, jax.random.key(seed))
        identity = dataclasses.asdict(config) | {
            **{"natural_iter": natural_iter, "n_steps": n_steps, "width": width, "names": told},
            **{"dtype": str(target.shift.dtype), "bounds": [columns.lower, columns.upper]},
            **{"start": mean.tolist(), "scale": deviation.tolist()},
            "log_density": digest((target.shift, target.factor, target.log_constant)),
        }
        with watching.following(lambda: identity) as checkpoint:
            beside = (verbose, watching, checkpoint)
            found, histories = _train(potential, scheme, target, config, natural_iter, *beside)
        law = PushedNormal(found.potential, scheme, columns, target.shift, target.factor)
    training = histories | {"seconds": time.perf_counter() - began}
    posterior = Posterior(law, told, density, found.status, training)
    cure = (
        ": lower learning_rate, choose another start, or give the bounds outside which there is no "
        "density."
    )
    raise_if_stopped(found.status, cure, posterior)
    return posterior


def check_density(
    known: OnLine,
    mean: Float[np.ndarray, " d"],
    deviation: Float[np.ndarray, " d"],
    seed: int,
) -> None:
    """The log-density and its gradient at draws of the first Gaussian.

    Raises:
        ValueError: NaN or infinity there, or JAX cannot compute it in this precision.
    """
    rng = np.random.default_rng(seed)
    y = jnp.asarray(mean + deviation * rng.standard_normal((64, mean.size)), float)

    try:
        value, slope = _value_and_slope(known, y)
    except Exception as error:
        raise ValueError(
            f"log_density: expected one that JAX differentiates in {y.dtype}; got "
            f"{type(error).__name__}: {one_line(error)} NumPy arrays that it closes over keep the "
            "precision of an earlier jit: make them jax.numpy arrays, or choose another dtype."
        ) from error
    for what, array in (("values", np.asarray(value)), ("gradients", np.asarray(slope))):
        bad = ~np.isfinite(array.reshape(len(y), -1)).all(axis=1)
        if bad.any():
            at = np.asarray(y)[bad.argmax()]
            raise ValueError(
                f"log_density: expected finite {what}; got NaN or infinity at {bad.sum()} of "
                f"{len(y)} draws of the start, the first on the line at {at.tolist()}. Give bounds "
                "of the parameters, or a start and scale."
            )


def covering_gaussian(
    known: OnLine,
    mean: Float[np.ndarray, " d"],
    deviation: Float[np.ndarray, " d"],
    seed: int,
) -> tuple[GaussianStart, float]:
    """The Gaussian nearest to the density, or a wider one whose weights find more of Z; its log Z.

    Raises:
        ValueError: the nearest grows or shrinks without end, or the log-density is not finite.
    """
    best, best_z = None, -np.inf
    for share in _SHARES:
        found = gaussian_start(known, mean, np.diag(deviation), seed, share)
        if best is None:
            _refuse_improper(found)
        elif abs(found.drift) > _STRAYED or found.travel > _STILL or found.lost:
            break
        value, error = _log_z(known, found, seed)
        if best is None or value - 3 * error > best_z + _WORTH:
            best, best_z = found, value
    assert best is not None
    return best, best_z


def _refuse_improper(found: GaussianStart) -> None:
    size = np.linalg.norm(found.factor, axis=1)
    if found.lost > 0.5 or not (np.isfinite(size).all() and np.isfinite(found.mean).all()):
        raise ValueError(
            "log_density: expected finite values and gradients; got NaN or infinity at "
            f"{100 * found.lost:.0f} % of the draws of a Gaussian fitted to it."
        )
    if abs(found.drift) > _STRAYED:
        how = "grow" if found.drift > 0 else "shrink"
        raise ValueError(
            "log_density: expected a density of finite integral, bounded on the line; got one "
            f"whose Gaussian fits {how} without end (deviation {size.max():.2g}): a flat "
            "direction, or a pole."
        )
    if found.travel > _STILL:
        raise ValueError(
            "start: expected one nearer to the density, or a larger scale; got one from which the "
            f"Gaussian still moves, on the line at {found.mean.tolist()}."
        )


@eqx.filter_jit
def _value_and_slope(known: OnLine, y: Float[Array, "n d"]) -> tuple[Array, Array]:
    return known(y), jax.grad(lambda y: known(y).sum())(y)


def _log_z(known: OnLine, gaussian: GaussianStart, seed: int) -> tuple[float, float]:
    """log of the mean weight of a Gaussian's draws, and its standard error."""
    d = gaussian.mean.size
    z = jax.random.normal(jax.random.key(seed + 1), (_START_DRAWS, d))
    y = jnp.asarray(gaussian.mean, float) + z @ jnp.asarray(gaussian.factor.T, float)
    log_q = StandardNormal(d).log_prob(z) - np.linalg.slogdet(gaussian.factor)[1]
    log_w = np.asarray(eqx.filter_jit(known)(y) - log_q, np.float64)
    log_w = np.where(np.isfinite(log_w), log_w, -np.inf)
    value = log_mean(log_w)
    w = np.exp(log_w - value)
    return value, float(w.std() / np.sqrt(len(w)))


def _train(
    potential: ConvexStages,
    scheme: Conforming,
    target: Unnormalised,
    config: TrainingConfig,
    natural_iter: int,
    verbose: bool,
    watch: Watch,
    checkpoint: Checkpoint | None,
) -> tuple[TrainingResult, dict[str, Any]]:
    """First-order steps on fresh draws, then natural gradients; the history of each."""
    normal = StandardNormal(target.dim)
    keys = jax.random.split(jax.random.key(config.seed), 2)
    held = Rows(normal.sample(keys[0], _VALIDATION))
    fresh = NormalBatches(target.dim, config.batch_size, config.seed, target.shift.dtype)
    first = train(potential, scheme, target, fresh, held, config, verbose, watch, checkpoint)
    told = {"history": first.history}
    if not natural_iter or first.status in ("interrupted", "non_finite"):
        return first, told
    natural = NaturalConfig(alpha=float(config.alpha), max_iter=natural_iter)
    draw = jax.jit(lambda k: normal.sample(jax.random.fold_in(keys[1], k), _NATURAL_ROWS))
    given = (target, lambda k: Rows(draw(k)), held, natural, normal.log_prob)
    second = polish(first.potential, scheme, *given, verbose, watch, checkpoint)
    return second, told | {"natural_history": second.history}


def _names(names: Sequence[str] | None, dim: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"x{j}" for j in range(dim))
    found = tuple(names)
    if isinstance(names, str) or len(set(found)) != dim or not all(type(n) is str for n in found):
        raise ValueError(f"names: expected {dim} different texts; got {names!r}.")
    return found


def _each(name: str, value: Any, dim: int) -> Float[np.ndarray, " d"]:
    """One number a parameter."""
    return check_array(name, np.full(dim, value) if np.ndim(value) == 0 else value, (dim,))
