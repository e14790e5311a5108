"""From an estimator's settings to a trained flow: first-order steps, then natural gradients."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from otflow.data.batches import AbstractBatches
from otflow.estimator.building import BASES, make_scheme, starting_potential
from otflow.estimator.defaults import POTENTIALS, decided, potential_of
from otflow.flow.flow import Flow
from otflow.flow.normalisation import Integral, density_integral
from otflow.potentials.base import AbstractStages
from otflow.support.checks import check_count, check_number
from otflow.support.precision import cast, precision
from otflow.targets import AbstractTarget, StandardNormal
from otflow.training import NaturalConfig, Rows, TrainingConfig, TrainingResult, polish, train
from otflow.training.checkpoint import Checkpoint, Watch, digest, sigterm_interrupts
from otflow.training.plan import start_from_plan

# natural steps on rows alone: far, and taken back where the batch's objective does not fall
_ON_DATA: dict[str, Any] = {"step": 1.0, "largest_kl": 0.1, "monotone": True}
DECIDED = ("potential", "width", "beta", "learning_rate", "weight_decay", "plan_iter")


class TrainingDivergedError(FloatingPointError):
    """Training met a non-finite objective; the estimator holds the last good weights."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The hyperparameters of `OTFlow`, under the same names, checked; None is `resolved` later.

    Raises:
        ValueError, TypeError: one is out of its range.
    """

    alpha: float
    beta: float | None
    width: int | None
    depth: int
    scheme: str
    n_steps: int | None
    n_probes: int
    max_iter: int
    natural_iter: int
    batch_size: int
    learning_rate: float | None
    weight_decay: float | None
    patience: int
    plan_iter: int | None
    merging: float
    validation_fraction: float
    base: str | None
    dtype: Any
    standardize: bool
    warm_start: bool
    target: AbstractTarget | None
    potential: str | None
    verbose: bool

    def __post_init__(self) -> None:
        for name in ("depth", "natural_iter", "n_probes"):
            check_count(name, getattr(self, name), 0)
        if self.width is not None:
            check_count("width", self.width)
        if self.plan_iter is not None:
            check_count("plan_iter", self.plan_iter, 0)
        make_scheme(self.scheme, self.n_steps)
        if self.n_probes and self.scheme != "rk4":
            raise ValueError(
                f"n_probes: expected 0 with scheme {self.scheme!r}, whose training is exact; "
                f"got {self.n_probes}."
            )
        if self.potential not in (*POTENTIALS, None):
            raise ValueError(f"potential: expected one of {POTENTIALS}; got {self.potential!r}.")
        if self.potential == "convex" and self.scheme != "conforming":
            raise ValueError(
                f"potential: expected 'resnet' with scheme {self.scheme!r}; got 'convex', whose "
                "stages are steps of the conforming scheme."
            )
        if any(getattr(self, name) is None for name in DECIDED):
            self.resolved(1, 1)  # checked as these are
        else:
            self.training(0)
        if self.base not in BASES:
            raise ValueError(f"base: expected one of {BASES}; got {self.base!r}.")
        if self.target is not None and not isinstance(self.target, AbstractTarget):
            raise TypeError(
                f"target: expected an object of otflow.targets; got {type(self.target).__name__}."
            )
        for name in ("standardize", "verbose", "warm_start"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise TypeError(f"{name}: expected True or False; got {getattr(self, name)!r}.")
        check_number("validation_fraction", self.validation_fraction, positive=False)
        if self.validation_fraction >= 1:
            raise ValueError(
                f"validation_fraction: expected a number in [0, 1); got {self.validation_fraction}."
            )
        with precision(self.dtype):
            pass

    def resolved(self, n: int, dim: int, fresh: bool = False) -> "Settings":
        """The settings with what n rows of dim columns decide in the place of None.

        `fresh`: the rows are draws of a known density.
        """
        check_number("alpha", self.alpha, positive=True)
        potential = potential_of(self.potential, self.scheme)
        normal = self.target is None or isinstance(self.target, StandardNormal)
        found: dict[str, Any] = {"potential": potential}
        found |= decided(potential, self.alpha, n, dim, normal=normal, fresh=fresh)
        return dataclasses.replace(
            self, **{name: v for name, v in found.items() if getattr(self, name) is None}
        )

    def training(self, seed: int) -> TrainingConfig:
        """The first-order phase of resolved settings."""
        names = ["alpha", "beta", "max_iter", "batch_size", "learning_rate", "patience"]
        names += ["n_probes", "merging", "weight_decay"]
        values = {name: getattr(self, name) for name in names}
        clip = 10.0 * max(1.0, float(self.alpha))  # the gradient scales with alpha
        return TrainingConfig(**values, seed=seed, clip_norm=clip)

    def make_target(self, dim: int) -> AbstractTarget:
        """The target, checked against the data's dimension."""
        target = StandardNormal(dim) if self.target is None else self.target
        if target.dim != dim:
            raise ValueError(f"target: expected dimension {dim}; got {target.dim}.")
        return target


@dataclasses.dataclass(frozen=True)
class Material:
    """What a flow is trained on.

    `x` are the rows of the first-order phase, `x_val` those that decide which weights are best
    (None: x, without early stopping); `draw` gives the batch of a natural-gradient step by its
    number; `density` is rho0 where it is known. Where x are batches from a stream, `points` have
    the mean and covariance of all its rows, and `stream` is its digest.
    """

    x: Rows | AbstractBatches
    x_val: Rows | None
    draw: Callable[[int], Rows]
    density: AbstractTarget | None = None
    points: Rows | None = None
    stream: str | None = None


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The best flow, its history (and that of the natural-gradient phase), and how it ended.

    `integral` is that of its density where the potential is not bijective and takes no condition.
    """

    flow: Flow
    history: dict[str, list[float]]
    n_iter: int
    status: str
    settings: Settings
    integral: Integral | None
    natural_history: dict[str, list[float]] | None = None

    def raise_if_stopped(self) -> None:
        """Raise what stopped training, unless it ended by itself."""
        if self.status == "interrupted":
            raise KeyboardInterrupt("training was interrupted; the best weights so far are kept.")
        if self.status == "non_finite":
            raise TrainingDivergedError(
                f"the objective became non-finite after iteration "
                f"{int(self.history['iteration'][-1])}; flow_ holds the weights of iteration "
                f"{self.n_iter}. Lower learning_rate (now {self.settings.learning_rate}), raise "
                f"n_steps (now {self.settings.n_steps}) or use dtype='float64'."
            )


def fit_flow(
    settings: Settings,
    material: Material,
    target: AbstractTarget,
    seed: int,
    watch: Watch = Watch(),
    start: Flow | None = None,
) -> Fitted:
    """Train a flow, `start` or a new one; call within `precision(settings.dtype)`.

    See `Fitted.raise_if_stopped`.

    Raises:
        ValueError: `watch` is to resume another run; names the settings or data that differ.
    """
    target = cast(target, settings.dtype)
    if watch.checkpoint is None:
        return _fit_flow(settings, material, target, seed, watch, start, None)
    checkpoint = watch.open(_identity(settings, material, target, seed, start))
    with sigterm_interrupts():
        return _fit_flow(settings, material, target, seed, watch, start, checkpoint)


def _identity(
    settings: Settings, material: Material, target: AbstractTarget, seed: int, start: Flow | None
) -> dict[str, Any]:
    """What decides the numbers of a run: settings by name, data as digests."""
    found = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    found |= {"dtype": np.dtype(settings.dtype).name, "random_state": seed}
    found |= {f.name: digest(getattr(material, f.name)) for f in dataclasses.fields(material)}
    found |= {"target": digest(target), "start": digest(start), "stream": material.stream}
    return {
        name: found[name] for name in sorted(found) if name not in ("draw", "points", "verbose")
    }


def _fit_flow(
    settings: Settings,
    material: Material,
    target: AbstractTarget,
    seed: int,
    watch: Watch,
    start: Flow | None,
    checkpoint: Checkpoint | None,
) -> Fitted:
    scheme = make_scheme(settings.scheme, settings.n_steps)
    rows = material.x if material.points is None else material.points
    assert isinstance(rows, Rows)
    n, dim = rows.x.shape
    settings = settings.resolved(n, dim, fresh=material.density is not None)
    assert settings.width is not None
    if start is None:
        rows = jax.tree.map(lambda array: np.asarray(array, np.float64), rows)
        potential = starting_potential(
            rows.x,
            target,
            settings.alpha,
            settings.width,
            settings.depth,
            settings.base,
            jax.random.key(seed),
            rows.condition,
            rows.weight,
            aligned=material.density is not None,
            n_stages=scheme.n_steps if settings.potential == "convex" else None,
        )
    else:
        potential, scheme = start.potential, start.scheme
    apart = start is not None  # the target's components are where they belong
    plan_iter = settings.plan_iter or 0
    if plan_iter and not apart and isinstance(potential, AbstractStages):
        verbose = settings.verbose
        potential = start_from_plan(potential, rows, target, plan_iter, seed, verbose)
        apart = True
    config = settings.training(seed)
    if apart:
        config = dataclasses.replace(config, merging=0.0)
    first = train(
        potential,
        scheme,
        target,
        material.x,
        material.x_val,
        config,
        settings.verbose,
        watch,
        checkpoint,
    )
    fitted = _fitted(first, target, settings, first, rows)
    if not settings.natural_iter or first.status in ("interrupted", "non_finite"):
        return fitted
    held = material.x if material.x_val is None else material.x_val
    assert isinstance(held, Rows)
    bold = {} if material.density is not None else _ON_DATA
    natural = NaturalConfig(alpha=float(settings.alpha), max_iter=settings.natural_iter, **bold)
    second = polish(
        first.potential,
        first.scheme,
        target,
        material.draw,
        held,
        natural,
        None if material.density is None else material.density.log_prob,
        settings.verbose,
        watch,
        checkpoint,
    )
    return _fitted(second, target, settings, first, rows, second.history)


def _fitted(
    result: TrainingResult,
    target: AbstractTarget,
    settings: Settings,
    first: TrainingResult,
    rows: Rows,
    natural_history: dict[str, list[float]] | None = None,
) -> Fitted:
    flow = Flow(result.potential, target, result.scheme)
    known = flow.potential.bijective or flow.condition_dim or result.status == "non_finite"
    integral = None if known else density_integral(flow, np.asarray(rows.x))
    ended = (first.history, first.best_iteration, result.status, settings)
    return Fitted(flow, *ended, integral, natural_history)
