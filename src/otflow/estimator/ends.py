"""The density that a map between two populations ends at: a mixture, or a fitted flow's own."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from otflow.data.beside import DataRows
from otflow.data.preprocessing import Standardizer
from otflow.estimator.building import regression
from otflow.estimator.estimator import OTFlow
from otflow.flow.flow_target import ConditionalFlowTarget, FlowTarget
from otflow.support.extras import require
from otflow.support.statistics import covariance
from otflow.targets import AbstractTarget, GaussianMixture

_FOLDS = 5  # of the cross-validation
_REGULARISER = 1e-4  # added to the components' variances; the populations' mean variance is 1


def mixture(z: Float[np.ndarray, "m d"], most: int, seed: int) -> GaussianMixture:
    """scikit-learn's mixture of full covariances, with as many as predict rows left out best.

    BIC takes fewer: on the embryoid body samples of its mixture were 1 to 7 % further from held-out
    cells in W2. Numbers are tried upwards until two in a row do not help.
    """
    estimator = require("sklearn.mixture", "sklearn").GaussianMixture
    selection = require("sklearn.model_selection", "sklearn")
    folds = selection.KFold(min(_FOLDS, len(z)), shuffle=True, random_state=seed)
    options = {"random_state": seed, "reg_covar": _REGULARISER, "n_init": 2, "max_iter": 300}
    chosen, highest = 1, -np.inf
    most = min(most, len(z) - len(z) // folds.n_splits)
    for k in range(1, most + 1 if most > 1 else 1):  # a single row cannot be fitted
        if k > chosen + 2:
            break
        score = selection.cross_val_score(estimator(k, **options), z, cv=folds).mean()
        if score > highest:
            chosen, highest = k, score
    best = estimator(chosen, **options).fit(z)
    covs = 0.5 * (best.covariances_ + best.covariances_.transpose(0, 2, 1))
    return GaussianMixture(best.weights_, best.means_, covs)


def density_of(
    density: OTFlow, z: Float[np.ndarray, "m d"], common: Standardizer
) -> AbstractTarget:
    """The density of a fitted model of Y, in the common scale of the rows z of Y."""
    own = density.standardizer_
    return FlowTarget(
        flow=density.flow_,
        shift=jnp.asarray((own.mean - common.mean) / common.scale),
        scale=jnp.asarray(own.scale / common.scale),
        mean=jnp.asarray(z.mean(axis=0)),
        cov=jnp.asarray(covariance(z)),
    )


def density_given(
    density: OTFlow, rows: DataRows, common: Standardizer, conditions: Standardizer
) -> AbstractTarget:
    """That of a conditional model, for conditions that `conditions` has scaled.

    Args:
        density: of Y given c, in the data's units.
        rows: of Y in the common scale, with their conditions as they are.
        common: the scale of the rows.
        conditions: the scale of what it is given.
    """
    own, of_condition = density.standardizer_, density.condition_scaler_
    assert rows.condition is not None
    assert of_condition is not None
    c = conditions.forward(rows.condition)
    mean, gain = regression(rows.x, c)
    found = {
        "shift": (own.mean - common.mean) / common.scale,
        "scale": own.scale / common.scale,
        "offset": (conditions.mean - of_condition.mean) / of_condition.scale,
        "rate": conditions.scale / of_condition.scale,
        "mean": mean,
        "cov": covariance(rows.x - c @ gain.T),
        "gain": gain,
    }
    return ConditionalFlowTarget(
        flow=density.flow_, **{name: jnp.asarray(value) for name, value in found.items()}
    )


def check_density(
    density: Any,
    dim: int,
    condition_dim: int,
    names: tuple[str, ...] | None,
    name: str = "density",
) -> None:
    """A fitted model of Y, of its columns and conditions, without bounds, arcsinh and rounding.

    Raises:
        ValueError, TypeError: it is not.
    """
    if not isinstance(density, OTFlow) or not hasattr(density, "flow_"):
        raise TypeError(f"{name}: expected a fitted OTFlow; got {type(density).__name__}.")
    if density.flow_.dim != dim:
        raise ValueError(f"{name}: expected {dim} columns; got {density.flow_.dim}.")
    if density.n_conditions_ != condition_dim:
        told = f"expected a model with {condition_dim} columns of a condition"
        raise ValueError(f"{name}: {told}; got {density.n_conditions_}.")
    known = density.model_.columns
    if known is not None and names is not None and known != names:
        told = f"expected a model of {', '.join(names)}; got one of {', '.join(known)}"
        raise ValueError(f"{name}: {told}.")
    if not density.column_map_.is_identity:
        told = "expected a model without bounds, arcsinh and rounding; got some"
        raise ValueError(f"{name}: {told}.")
