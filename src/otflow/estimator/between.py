"""Transport between two populations, both known by rows only, also under a condition (SPEC 9)."""

import dataclasses
import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from otflow.data.beside import DataRows
from otflow.data.columns import BY_COLUMN
from otflow.data.conditions import check_condition, refuse_condition
from otflow.data.preprocessing import Standardizer, constant_columns
from otflow.estimator.ends import check_density, density_given, density_of, mixture
from otflow.estimator.estimator import OTFlow
from otflow.estimator.fitting import made_of_stopped
from otflow.estimator.population_map import Between, Carried, sample_w2
from otflow.support.checks import check_count, check_number, check_rows
from otflow.support.frames import check_names, names_of
from otflow.targets import AbstractTarget
from otflow.training import Watch

if TYPE_CHECKING:
    from otflow.estimator.growing import GrowingBetween

__all__ = ["SETTINGS", "Between", "Carried", "sample_w2", "transport_between"]

_LEAST_GIVEN = 10  # rows
_OUTSIDE = 0.02  # share of rows under extrapolated conditions that is told
SETTINGS: dict[str, Any] = {
    "alpha": 100.0,
    "width": 128,
    "depth": 0,
    "n_steps": 4,
    "max_iter": 1500,
    "verbose": False,
}


def transport_between(
    X: Any,
    Y: Any,
    *,
    condition_x: Any = None,
    condition_y: Any = None,
    density: OTFlow | None = None,
    max_components: int = 30,
    seed: int = 0,
    growth: float | None = None,
    mass_x: float = 1.0,
    mass_y: float = 1.0,
    density_x: OTFlow | None = None,
    **settings: Any,
) -> "Between | GrowingBetween":
    """Optimal transport from the population of X to that of Y, under a condition for every c.

    A flow to N(0, I) from each side and back does not give it: the composition of two optimal maps
    is not optimal. So the density of Y is fitted first, and then one flow from X to that density.

    Args:
        X: (n, d) rows, n >= 2, of an array or a data frame.
        Y: (m, d) rows in the same units, m >= 2; of two frames, with the same columns in the same
            order.
        condition_x: (n, k) numbers, a row for each of X: the map is then one for every c, from the
            law of X given c to that of Y given c. Categories as one-hot columns of 0 and 1.
        condition_y: (m, k), a row for each of Y, with condition_x.
        density: a fitted `OTFlow` of Y without bounds or rounding, conditional where the map is; by
            default a Gaussian mixture whose number of components has the highest cross-validated
            likelihood, and under a condition an `OTFlow` with the default settings.
        max_components: of that mixture.
        seed: of everything random.
        growth: delta, in the data's units: at what price mass grows (SPEC 10). Within pi delta a
            row may move, beyond it only die and grow anew; None keeps every row's mass.
        mass_x, mass_y: of the two populations, > 0; other than 1 with growth only.
        density_x: of X, as `density` of Y; with growth only.
        settings: of `OTFlow`, by default those in `SETTINGS`: four conforming steps. With growth,
            those in `otflow.estimator.growing.SETTINGS`. And with what `OTFlow.fit` watches the
            map's training: checkpoint, checkpoint_every, resume, on_validation.

    Returns:
        The map; with growth a `GrowingBetween`, with the mass of every row.

    Raises:
        ValueError, TypeError: bad rows or settings, before any training.
        ImportError: scikit-learn is missing.
        OSError: the checkpoint cannot be written, or holds a run and `resume` is not set.
        KeyboardInterrupt, TrainingDivergedError: training was stopped; `fitted` is the map so far.
    """
    names = names_of(Y) if names_of(X) is None else names_of(X)
    check_names("Y", Y, names)
    x, y = check_rows("X", X, least=2), check_rows("Y", Y, least=2)
    check_rows("Y", Y, x.shape[1])
    check_count("max_components", max_components)
    check_count("seed", seed, 0)
    _check_growth(growth, mass_x, mass_y, density_x)
    taken = {"target", "standardize", "random_state", *BY_COLUMN} & set(settings)
    if taken:
        raise ValueError(f"settings: expected none of {sorted(taken)}, which are decided here.")
    watch = {f.name: settings.pop(f.name) for f in dataclasses.fields(Watch) if f.name in settings}
    watching = Watch(**watch)
    options = SETTINGS | settings | {"standardize": False, "random_state": seed}
    if growth is None:
        OTFlow(**options)._settings()  # checked before the density takes its time
    else:
        refuse_condition(condition_x, "condition_x")
    c_x, c_y = _conditions(condition_x, condition_y, len(x), len(y))
    if density is not None:
        check_density(density, x.shape[1], 0 if c_x is None else c_x.shape[1], names)
    common = _common_scale(x, y)
    told = names or [f"x{j}" for j in range(x.shape[1])]
    if constant := [told[j] for j in np.flatnonzero(constant_columns(x))]:
        raise ValueError(
            f"X: expected columns that vary; got constant column(s) {', '.join(constant)}."
        )
    if density_x is not None:
        check_density(density_x, x.shape[1], 0, names, "density_x")

    def end(density: OTFlow | None, z: Float[np.ndarray, "m d"]) -> AbstractTarget:
        if density is None:
            return mixture(z, max_components, seed)
        return density_of(density, z, common)

    if growth is not None:
        from otflow.estimator.growing import Asked, growing_between

        asked = Asked.of(settings, growth, (mass_x, mass_y), seed, watching)
        ends = end(density_x, common.forward(x)), end(density, common.forward(y))
        return growing_between(common, names, *ends, asked)
    first, second = DataRows(common.forward(x), None, c_x), DataRows(common.forward(y), None, c_y)
    if c_x is not None:
        model, rows = _made_given(first, second, common, density, options, seed)
    else:
        model, rows = OTFlow(**options, target=end(density, second.x)), {"X": first.x}

    def finished(nothing: Any = None) -> Between:
        model.standardizer_ = common
        if names is not None:
            model.feature_names_in_ = np.array(names, dtype=object)
        if (named := names_of(condition_x)) is not None:
            model.condition_names_in_ = np.array(named, dtype=object)
        return Between(model)

    with made_of_stopped(finished):
        model.fit(**rows, **watch)
    return finished()


def _conditions(
    condition_x: Any, condition_y: Any, n: int, m: int
) -> tuple[Float[np.ndarray, "n k"] | None, Float[np.ndarray, "m k"] | None]:
    """Both conditions checked, or neither; rows of X under a condition that Y lacks are told."""
    if condition_x is None:
        refuse_condition(condition_y, "condition_y")
        return None, None
    if min(n, m) < _LEAST_GIVEN:
        told = f"expected at least {_LEAST_GIVEN} rows of both with a condition"
        raise ValueError(f"X, Y: {told}; got {n} and {m}.")
    first = check_condition(condition_x, n, name="condition_x")
    names = names_of(condition_x)
    check_names("condition_y", condition_y, names)
    second = check_condition(condition_y, m, name="condition_y")
    if second.shape[1] != first.shape[1]:
        told = f"expected {first.shape[1]} columns, as condition_x has"
        raise ValueError(f"condition_y: {told}; got {second.shape[1]}.")
    told_names = names or [f"c{j}" for j in range(first.shape[1])]
    binary = np.isin(first, (0.0, 1.0)).all(axis=0)
    missing = binary & first.any(axis=0) & ~second.any(axis=0)
    if missing.any():
        raise ValueError(
            "condition_y: expected rows of every category that condition_x has; got none of "
            f"{', '.join(told_names[j] for j in np.flatnonzero(missing))}."
        )
    outside = ((first < second.min(axis=0)) | (first > second.max(axis=0))).any(axis=1).mean()
    if outside > _OUTSIDE:
        warnings.warn(
            f"condition_x: {outside:.0%} of the rows lie outside the range of condition_y, where "
            "the density of Y is extrapolated.",
            UserWarning,
            stacklevel=3,
        )
    return first, second


def _made_given(
    first: DataRows,
    second: DataRows,
    common: Standardizer,
    density: OTFlow | None,
    options: dict[str, Any],
    seed: int,
) -> tuple[OTFlow, dict[str, Any]]:
    """The flow from the first population to the density of the second, given c, and its rows.

    The rows that stop training are held out here, because the target has to know the scale that
    conditions get from the others.
    """
    if density is None:
        density = OTFlow(random_state=seed, verbose=False)
        density.fit(second.x, condition=second.condition)
        common = Standardizer.identity(second.x.shape[1])
    fraction = float(options.get("validation_fraction", 0.1))
    share = max(fraction, 1.5 / len(first.x)) if fraction else 0.0
    train, held = first.split(share, seed)
    scaler = train.condition_scaler()
    assert scaler is not None
    target = density_given(density, second, common, scaler)
    model = OTFlow(**options, target=target)
    more = {} if held is None else {"X_val": held.x, "condition_val": held.condition}
    return model, {"X": train.x, "condition": train.condition} | more


def _check_growth(growth: Any, mass_x: Any, mass_y: Any, density_x: Any) -> None:
    check_number("mass_x", mass_x, positive=True)
    check_number("mass_y", mass_y, positive=True)
    if growth is not None:
        check_number("growth", growth, positive=True)
    elif (mass_x, mass_y, density_x) != (1, 1, None):
        raise ValueError("mass_x, mass_y, density_x: expected 1, 1 and none without growth.")


def _common_scale(X: Float[np.ndarray, "n d"], Y: Float[np.ndarray, "m d"]) -> Standardizer:
    """The mean of both means, and one scale: the root of the mean variance of the columns."""
    with np.errstate(over="ignore", invalid="ignore"):
        middle = 0.5 * (X.mean(axis=0) + Y.mean(axis=0))
        scale = math.sqrt(0.5 * (X.var(axis=0).mean() + Y.var(axis=0).mean()))
    if scale == 0:
        raise ValueError("X, Y: expected rows that vary; got constant ones.")
    if not math.isfinite(scale):
        raise ValueError("X, Y: expected rows whose variance is finite; got one that overflows.")
    return Standardizer(middle, np.full(X.shape[1], scale))
