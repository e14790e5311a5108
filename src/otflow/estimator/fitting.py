"""From an estimator's settings to a trained flow: first-order steps, then natural gradients."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from otflow.estimator.building import make_scheme, starting_potential
from otflow.estimator.material import Material
from otflow.estimator.settings import Settings
from otflow.flow.flow import Flow
from otflow.flow.normalisation import Integral, density_integral, may_fold
from otflow.potentials.base import AbstractPotential, AbstractStages
from otflow.schemes import AbstractScheme
from otflow.support.precision import cast
from otflow.targets import AbstractTarget
from otflow.training import NaturalConfig, Rows, TrainingResult, polish, train
from otflow.training.checkpoint import Checkpoint, Watch, digest
from otflow.training.plan import start_from_plan

# natural steps on rows alone: far, and taken back where the batch's objective does not fall
_ON_DATA: dict[str, Any] = {"step": 1.0, "largest_kl": 0.1, "monotone": True}


class TrainingDivergedError(FloatingPointError):
    """Training met a non-finite objective.

    The estimator holds the last good weights; of a function `fitted` is what it would have returned
    with these.
    """

    fitted: Any = None


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C, or with a checkpoint SIGTERM, in training; `fitted` as in `TrainingDivergedError`."""

    fitted: Any = None


def raise_if_stopped(status: str, cure: str, fitted: Any = None) -> None:
    """Raise what stopped training, unless it ended by itself.

    Args:
        status: of the run.
        cure: of an objective that is not finite.
        fitted: what a function returns.
    """
    stop: TrainingInterrupted | TrainingDivergedError
    if status == "interrupted":
        where = "" if fitted is None else " in `fitted` of this exception"
        stop = TrainingInterrupted(
            f"training was interrupted; the best weights so far are kept{where}."
        )
    elif status == "non_finite":
        stop = TrainingDivergedError(f"the objective became non-finite{cure}")
    else:
        return
    stop.fitted = fitted
    raise stop


@contextlib.contextmanager
def made_of_stopped(make: Callable[[Any], Any]) -> Iterator[None]:
    """Where training is stopped within, `fitted` is what is made of it."""
    try:
        yield
    except (TrainingInterrupted, TrainingDivergedError) as stop:
        stop.fitted = make(stop.fitted)
        raise


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The best flow, its history (and that of the natural-gradient phase), and how it ended.

    `integral` is that of its density where the map may fold; `n_train` the rows it was trained on,
    None of a density.
    """

    flow: Flow
    history: dict[str, list[float]]
    n_iter: int
    status: str
    settings: Settings
    integral: Integral | None
    n_train: int | None
    natural_history: dict[str, list[float]] | None = None

    def raise_if_stopped(self) -> None:
        """Raise what stopped training, unless it ended by itself."""
        last = int(self.history["iteration"][-1]) if self.history else 0
        raise_if_stopped(
            self.status,
            f" after iteration {last}; flow_ holds the weights of iteration {self.n_iter}. "
            f"Lower learning_rate (now {self.settings.learning_rate}), raise n_steps (now "
            f"{self.settings.n_steps}) or use dtype='float64'.",
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
    given = (settings, material, cast(target, settings.dtype), seed, start)
    with watch.following(lambda: _identity(*given)) as checkpoint:
        return _fit_flow(*given, watch, checkpoint)


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
    start: Flow | None,
    watch: Watch,
    checkpoint: Checkpoint | None,
) -> Fitted:
    scheme = make_scheme(settings.scheme, settings.n_steps)
    rows = material.x if material.points is None else material.points
    assert isinstance(rows, Rows)
    n, dim = rows.x.shape
    settings = settings.resolved(n, dim, fresh=material.density is not None)
    if start is None:
        potential, apart = _start(settings, material, scheme, rows, target, seed)
    else:
        potential, scheme, apart = start.potential, start.scheme, True
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
        material.density,
    )
    if not settings.natural_iter or first.status in ("interrupted", "non_finite"):
        return _fitted(first, target, settings, first, rows, material.n)
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
    return _fitted(second, target, settings, first, rows, material.n, second.history)


def _start(
    settings: Settings,
    material: Material,
    scheme: AbstractScheme,
    rows: Any,
    target: AbstractTarget,
    seed: int,
) -> tuple[AbstractPotential, bool]:
    """A new potential, and whether a plan has put the target's components where they belong."""
    assert settings.width is not None
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
    stages = isinstance(potential, AbstractStages) or target.condition_dim
    if not settings.plan_iter or not stages or not potential.bijective:
        return potential, False
    plan = (target, settings.plan_iter, seed, settings.verbose)
    return start_from_plan(potential, rows, *plan), True


def _fitted(
    result: TrainingResult,
    target: AbstractTarget,
    settings: Settings,
    first: TrainingResult,
    rows: Rows,
    n_train: int | None,
    natural_history: dict[str, list[float]] | None = None,
) -> Fitted:
    flow = Flow(result.potential, target, result.scheme)
    integral = None
    if may_fold(flow) and result.status != "non_finite":
        given = None if rows.condition is None else np.asarray(rows.condition)
        integral = density_integral(flow, np.asarray(rows.x), condition=given)
    ended = (first.history, first.best_iteration, result.status, settings)
    return Fitted(flow, *ended, integral, n_train, natural_history)
