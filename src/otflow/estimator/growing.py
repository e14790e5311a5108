"""Transport between two populations whose masses differ: cells that divide and die (SPEC 10)."""

import dataclasses
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from otflow.certificates import Certificate
from otflow.certificates.unbalanced import certify_growth
from otflow.data.preprocessing import Standardizer
from otflow.estimator.fitting import raise_if_stopped
from otflow.flow.growing import GrowingFlow, GrowthEvaluation, evaluate_growth
from otflow.model.growingfile import GrowingModel, load_growing, save_growing
from otflow.parallel.devices import use_all_cores
from otflow.schemes.base import check_steps
from otflow.support.checks import check_count, check_number, check_rows, check_share
from otflow.support.frames import check_names
from otflow.support.precision import cast, precision
from otflow.targets import AbstractTarget
from otflow.training import Watch
from otflow.training.checkpoint import digest
from otflow.training.growing import GrowthConfig, train_growth

_OWN: dict[str, Any] = {"width": 64, "n_steps": 4, "dtype": "float32", "verbose": False}
_NOT_ASKED = ("seed", "n_probes", "nll_tolerance")  # the last two are of RK4
_CONFIG = {k: v for k, v in vars(GrowthConfig()).items() if k not in _NOT_ASKED}
SETTINGS: dict[str, Any] = _CONFIG | _OWN


class Mass(NamedTuple):
    """Rows, (k, d), and the mass that each of them carries, (k,)."""

    rows: Float[np.ndarray, "k d"]
    mass: Float[np.ndarray, " k"]


@dataclasses.dataclass(frozen=True, eq=False)
class GrowingBetween:
    """A map from one population to another along which mass grows; see `transport_between`.

    `model` holds the flow in the common scale of both populations, and `history` the course of its
    training, there and for a unit of mass: as in `otflow.training.TrainingResult`, but for the nll,
    whose place is the miss's.
    """

    model: GrowingModel
    history: dict[str, list[float]]

    def transform(self, X: Any) -> Float[np.ndarray, "n d"]:
        """Where rows of the first population end, (n, d), the data's units."""
        return self.model.scale.inverse(self._pushed(X).points)

    def inverse_transform(self, Y: Any) -> Float[np.ndarray, "n d"]:
        """Where rows of the second population come from, (n, d)."""
        found = self.model.flow.pull(self._scaled("Y", Y))
        _warn_lost(found.valid, "have no preimage that was found")
        return self.model.scale.inverse(np.asarray(found.points))

    def growth(self, X: Any) -> Float[np.ndarray, " n"]:
        """The factor by which the mass at each row grows until the end, (n,), > 0.

        Its logarithm is the mean growth rate along the row's way, a unit of time from X to Y.
        """
        return np.exp(self._pushed(X).log_mass.astype(float))

    def rates(self, X: Any, time: float = 0.0, span: float = 0.01) -> Float[np.ndarray, " n"]:
        """The mean growth rates of rows from `time` on, over a share `span` of the way, (n,)."""
        check_number("span", span, positive=True)
        then = min(check_share("time", time) + span, 1.0)
        x = self._scaled("X", X)
        before, after = (self.model.flow.at(x, t)[1] for t in (then - span, then))
        return (after.astype(float) - before) / span

    def at(self, X: Any, time: float) -> Mass:
        """Rows on their way at a time in [0, 1], with their masses.

        X stands for the whole first population: at time 0 each row has mass_x / n.
        """
        rows, log_mass = self.model.flow.at(self._scaled("X", X), check_share("time", time))
        mass = self.model.flow.mass_x / len(rows) * np.exp(log_mass.astype(float))
        return Mass(self.model.scale.inverse(rows), mass)

    def log_density(self, Y: Any) -> Float[np.ndarray, " n"]:
        """log of the density that arrives at rows, whose integral is the mass at the end, (n,)."""
        found = self.model.flow.log_density(self._scaled("Y", Y)).astype(float)
        return found - np.log(self.model.scale.scale).sum()

    def evaluate(self, n: int = 20_000, seed: int = 0) -> GrowthEvaluation:
        """Transport, miss, objective and mass on fresh draws from the density of X, float64.

        Squared units of the common scale: divide lengths by `model.scale.scale`.
        """
        return evaluate_growth(self.model.flow, self.model.alpha, n, seed)

    def certify(self, X: Any, Y: Any = None, **options: Any) -> Certificate:
        """How near the flow is to the least price between X and what arrives, both with mass.

        Args:
            X: (n, d) held-out rows of the first population, n >= 40.
            Y: (k, d) of the second, k >= 40, for a lower bound of the price to there, or None.
            options: of `otflow.certificates.certify_growth`.
        """
        rows = self._scaled("X", X)
        held = None if Y is None else self._scaled("Y", Y)
        return certify_growth(self.model.flow, rows, held, **options)

    def save(self, path: Any) -> None:
        """Write the map to one file without code, atomically."""
        save_growing(path, self.model, self.history)

    @staticmethod
    def load(path: Any) -> "GrowingBetween":
        """The map that `save` wrote.

        Raises:
            FileNotFoundError, ValueError: no such file, or another one.
        """
        return GrowingBetween(*load_growing(path))

    def _pushed(self, X: Any) -> Any:
        found = self.model.flow.push(self._scaled("X", X))
        _warn_lost(found.valid, "lie too far out for the flow's precision")
        return found

    def _scaled(self, name: str, rows: Any) -> Float[np.ndarray, "n d"]:
        check_names(name, rows, self.model.columns)
        return self.model.scale.forward(check_rows(name, rows, self.model.flow.dim))


def _warn_lost(valid: Any, what: str) -> None:
    lost = int((~np.asarray(valid)).sum())
    if lost:
        warnings.warn(f"{lost} of {len(valid)} rows {what}.", UserWarning, stacklevel=4)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a fit is asked to do, checked before any compute.

    Raises:
        ValueError, TypeError: settings that are none of `SETTINGS`, or out of range.
    """

    config: GrowthConfig
    n_steps: int
    width: int
    dtype: Any
    verbose: bool
    growth: float
    masses: tuple[float, float]
    watch: Watch

    @staticmethod
    def of(
        settings: dict[str, Any],
        growth: float,
        masses: tuple[float, float],
        seed: int,
        watch: Watch,
    ) -> "Asked":
        """From the settings that differ from `SETTINGS`."""
        if unknown := set(settings) - set(SETTINGS):
            known = f"some of {', '.join(SETTINGS)} with growth"
            raise ValueError(f"settings: expected {known}; got {', '.join(sorted(unknown))}.")
        options = SETTINGS | settings
        own = {name: options.pop(name) for name in _OWN}
        check_steps(own["n_steps"])
        check_count("width", own["width"])
        with precision(own["dtype"]):  # or refuse it
            config = GrowthConfig(**options, seed=seed)
        of_both = (float(masses[0]), float(masses[1]))
        return Asked(config, **own, growth=float(growth), masses=of_both, watch=watch)

    def identity(self, start: AbstractTarget, end: AbstractTarget) -> dict[str, Any]:
        """What decides the numbers of a run: settings by name, both ends as digests."""
        found = dataclasses.asdict(self.config) | {"start": digest(start), "end": digest(end)}
        found |= {name: getattr(self, name) for name in ("n_steps", "width", "growth", "masses")}
        return found | {"dtype": np.dtype(self.dtype).name}


def growing_between(
    scale: Standardizer,
    columns: tuple[str, ...] | None,
    start: AbstractTarget,
    end: AbstractTarget,
    asked: Asked,
) -> GrowingBetween:
    """The flow from mass_x start to mass_y end, both in the common scale; see `transport_between`.

    Raises:
        TrainingDivergedError: training met numbers that are not finite.
        KeyboardInterrupt: Ctrl-C. Of both `fitted` is the map at its best until then.
    """
    use_all_cores()
    delta, key = asked.growth / float(scale.scale[0]), jax.random.key(asked.config.seed)
    with precision(asked.dtype):
        sizes = delta, asked.n_steps, asked.width
        flow = cast(GrowingFlow.create(start, end, *sizes, key, *asked.masses), asked.dtype)
        with asked.watch.following(lambda: asked.identity(start, end)) as checkpoint:
            found = train_growth(flow, asked.config, asked.verbose, asked.watch, checkpoint)
    model = GrowingModel(found.flow, scale, columns, asked.config.alpha)
    fitted = GrowingBetween(model, found.history)
    rate = asked.config.learning_rate
    cure = f": lower learning_rate (now {rate}), raise growth or use dtype='float64'."
    raise_if_stopped(found.status, cure, fitted)
    return fitted
