"""Transport between two populations, both known by rows only."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from otflow.certificates import Certificate, certify_model
from otflow.certificates.lines import test_lines
from otflow.certificates.two_sample import mmd, sliced_w2
from otflow.data.preprocessing import Standardizer, constant_columns
from otflow.estimator.estimator import OTFlow
from otflow.estimator.loading import load
from otflow.flow.flow_target import FlowTarget
from otflow.reference import discrete
from otflow.support.checks import check_count, check_number, check_rows
from otflow.support.extras import require
from otflow.support.frames import check_names, names_of
from otflow.targets import AbstractTarget, GaussianMixture

if TYPE_CHECKING:
    from otflow.estimator.growing import GrowingBetween

_TEST_ROWS = 800  # a side of a two-sample test
_FOLDS = 5  # of the cross-validation
_REGULARISER = 1e-4  # added to the components' variances; the populations' mean variance is 1
SETTINGS: dict[str, Any] = {
    "alpha": 100.0,
    "width": 128,
    "depth": 0,
    "n_steps": 4,
    "max_iter": 1500,
    "verbose": False,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Between:
    """A map from one population to another and back; see `transport_between`.

    `model` is the fitted flow. It is trained in a common scale, the data shifted and divided by one
    number, so that straight lines and optimality mean the same there as in the data's units.
    """

    model: OTFlow

    def transform(self, X: Any) -> Float[np.ndarray, "n d"]:
        """Rows of the first population carried to the second, (n, d), the data's units."""
        rows = self._rows("X", X)
        return self.model.standardizer_.inverse(self.model.model_.forward(rows))

    def inverse_transform(self, Y: Any) -> Float[np.ndarray, "n d"]:
        """Rows of the second population carried back to the first, (n, d)."""
        rows = self._rows("Y", Y)
        return np.asarray(self.model.inverse_transform(self.model.standardizer_.forward(rows)))

    def w2(self, X: Any, Y: Any, most: int = 1000, seed: int = 0) -> float:
        """W2 between T(X) and Y, both held out, by `sample_w2`."""
        return sample_w2(self.transform(X), self._rows("Y", Y), most, seed)

    def certify(self, X: Any, Y: Any = None, **options: Any) -> Certificate:
        """How optimal the map is, and whether T(X) and Y have one law.

        The bracket is of 1/2 W2^2(X's law, law of T(X)): it says nothing about Y. That T(X) has the
        law of Y, and not only that of the density fitted to Y, is what the added lines test.

        Args:
            X: (n, d) held-out rows of the first population, n >= 40.
            Y: (m, d) held-out rows of the second; None leaves the lines out.
            options: of `otflow.certificates.certify`.
        """
        space = "the common scale of both populations"
        found = certify_model(self.model, X, **{"space": space} | options)
        if Y is None:
            return found
        scaler, seed = self.model.standardizer_, options.get("seed", 0)
        ends = scaler.forward(self.transform(X))
        held = scaler.forward(self._rows("Y", Y, least=20))
        k = min(len(ends), len(held), _TEST_ROWS)
        rng = np.random.default_rng(seed)
        ends, held = (rows[rng.permutation(len(rows))[:k]] for rows in (ends, held))
        tests = {
            "T(X) against Y, MMD": mmd(ends, held, seed=seed),
            "T(X) against Y, sliced W2": sliced_w2(ends, held, seed=seed),
        }
        return dataclasses.replace(found, lines=(*found.lines, *test_lines(tests, k)))

    def _rows(self, name: str, rows: Any, least: int = 1) -> Float[np.ndarray, "n d"]:
        """Rows of either population: of the model's columns, in their order."""
        check_names(name, rows, self.model.model_.columns)
        return check_rows(name, rows, self.model.flow_.dim, least)

    def save(self, path: str | Path) -> None:
        """Write the map to one model file without code."""
        self.model.save(path)

    @staticmethod
    def load(path: str | Path) -> "Between":
        """The map that `save` wrote.

        Raises:
            FileNotFoundError, ValueError: as `otflow.load`; or the model's columns are scaled one
                by one, as those of a plain `OTFlow` are.
        """
        model = load(path)
        if np.ptp(model.standardizer_.scale) > 0:
            raise ValueError(f"{path}: expected one scale for all columns; got several.")
        return Between(model)


def transport_between(
    X: Any,
    Y: Any,
    *,
    density: OTFlow | None = None,
    max_components: int = 30,
    seed: int = 0,
    growth: float | None = None,
    mass_x: float = 1.0,
    mass_y: float = 1.0,
    density_x: OTFlow | None = None,
    **settings: Any,
) -> "Between | GrowingBetween":
    """Optimal transport from the population of X to that of Y.

    A flow to N(0, I) from each side and back does not give it: the composition of two optimal maps
    is not optimal. So the density of Y is fitted first, and then one flow from X to that density.

    Args:
        X: (n, d) rows, n >= 2, of an array or a data frame.
        Y: (m, d) rows in the same units, m >= 2; of two frames, with the same columns in the same
            order.
        density: a fitted `OTFlow` of Y, unconditional and without bounds or rounding; by default a
            Gaussian mixture whose number of components has the highest cross-validated likelihood.
        max_components: of that mixture.
        seed: of everything random.
        growth: delta, in the data's units: at what price mass grows (SPEC 10). Within pi delta a
            row may move, beyond it only die and grow anew; None keeps every row's mass.
        mass_x, mass_y: of the two populations, > 0; other than 1 with growth only.
        density_x: of X, as `density` of Y; with growth only.
        settings: of `OTFlow`, by default those in `SETTINGS`: four conforming steps. With growth,
            those in `otflow.estimator.growing.SETTINGS`.

    Returns:
        The map; with growth a `GrowingBetween`, with the mass of every row.

    Raises:
        ValueError, TypeError: bad rows or settings, before any training.
        ImportError: scikit-learn is missing.
    """
    names = names_of(Y) if names_of(X) is None else names_of(X)
    check_names("Y", Y, names)
    X, Y = check_rows("X", X, least=2), check_rows("Y", Y, least=2)
    check_rows("Y", Y, X.shape[1])
    check_count("max_components", max_components)
    check_count("seed", seed, 0)
    _check_growth(growth, mass_x, mass_y, density_x)
    taken = {"target", "standardize", "random_state", "bounds", "dequantize"} & set(settings)
    if taken:
        raise ValueError(f"settings: expected none of {sorted(taken)}, which are decided here.")
    common = _common_scale(X, Y)
    told = names or [f"x{j}" for j in range(X.shape[1])]
    if constant := [told[j] for j in np.flatnonzero(constant_columns(X))]:
        raise ValueError(
            f"X: expected columns that vary; got constant column(s) {', '.join(constant)}."
        )
    z = common.forward(Y)
    if growth is not None:
        from otflow.estimator.growing import Asked, growing_between

        asked = Asked.of(settings, growth, (mass_x, mass_y), seed)
        given = {"density_x": (density_x, common.forward(X)), "density": (density, z)}
        start, end = (
            _mixture(rows, max_components, seed)
            if law is None
            else _target(law, rows, common, names, name)
            for name, (law, rows) in given.items()
        )
        return growing_between(common, names, start, end, asked)
    if density is None:
        target: AbstractTarget = _mixture(z, max_components, seed)
    else:
        target = _target(density, z, common, names)
    options = SETTINGS | settings | {"standardize": False, "random_state": seed, "target": target}
    model = OTFlow(**options).fit(common.forward(X))
    model.standardizer_ = common
    if names is not None:
        model.feature_names_in_ = np.array(names, dtype=object)
    return Between(model)


def sample_w2(x: Any, y: Any, most: int = 1000, seed: int = 0) -> float:
    """W2 between two equally large samples, at most `most` rows a side, by exact transport.

    Biased upwards, the more the higher d: compare only values at the same numbers of rows.

    Raises:
        ValueError, TypeError: no rows of finite numbers, or frames of other columns.
        ImportError: POT is missing.
    """
    check_count("most", most)
    check_names("y", y, names_of(x))
    x, y = check_rows("x", x), check_rows("y", y)
    k, rng = min(len(x), len(y), most), np.random.default_rng(seed)
    x, y = (rows[rng.permutation(len(rows))[:k]] for rows in (x, y))
    return math.sqrt(2 * discrete(x, y).half_w2_squared)


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


def _mixture(z: Float[np.ndarray, "m d"], most: int, seed: int) -> GaussianMixture:
    """scikit-learn's mixture of full covariances, with as many as predict rows left out best.

    BIC takes fewer: on the embryoid body samples of its mixture were 1 to 7 % further from held-out
    cells in W2. Numbers are tried upwards until two in a row do not help.
    """
    mixture = require("sklearn.mixture", "sklearn").GaussianMixture
    selection = require("sklearn.model_selection", "sklearn")
    folds = selection.KFold(min(_FOLDS, len(z)), shuffle=True, random_state=seed)
    options = {"random_state": seed, "reg_covar": _REGULARISER, "n_init": 2, "max_iter": 300}
    chosen, highest = 1, -np.inf
    most = min(most, len(z) - len(z) // folds.n_splits)
    for k in range(1, most + 1 if most > 1 else 1):  # a single row cannot be fitted
        if k > chosen + 2:
            break
        score = selection.cross_val_score(mixture(k, **options), z, cv=folds).mean()
        if score > highest:
            chosen, highest = k, score
    best = mixture(chosen, **options).fit(z)
    covs = 0.5 * (best.covariances_ + best.covariances_.transpose(0, 2, 1))
    return GaussianMixture(best.weights_, best.means_, covs)


def _target(
    density: OTFlow,
    z: Float[np.ndarray, "m d"],
    common: Standardizer,
    names: tuple[str, ...] | None,
    name: str = "density",
) -> AbstractTarget:
    """The density of a fitted model of Y, in the common scale."""
    if not isinstance(density, OTFlow) or not hasattr(density, "flow_"):
        raise TypeError(f"{name}: expected a fitted OTFlow; got {type(density).__name__}.")
    if density.flow_.dim != z.shape[1]:
        raise ValueError(f"{name}: expected {z.shape[1]} columns; got {density.flow_.dim}.")
    known = density.model_.columns
    if known is not None and names is not None and known != names:
        told = f"expected a model of {', '.join(names)}; got one of {', '.join(known)}"
        raise ValueError(f"{name}: {told}.")
    if not density.column_map_.is_identity:
        raise ValueError(f"{name}: expected a model without bounds and rounding; got some.")
    own = density.standardizer_
    return FlowTarget(
        flow=density.flow_,
        shift=jnp.asarray((own.mean - common.mean) / common.scale),
        scale=jnp.asarray(own.scale / common.scale),
        mean=jnp.asarray(z.mean(axis=0)),
        cov=jnp.asarray(np.cov(z, rowvar=False).reshape(z.shape[1], -1)),
    )
