"""NumPyro models: from a model and its data to draws in the constrained space."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from otflow.estimator.fitting import made_of_stopped
from otflow.estimator.posterior import Posterior
from otflow.estimator.unnormalised import fit_unnormalised
from otflow.support.extras import require
from otflow.support.precision import precision

Sites = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class NumPyroPosterior:
    """The posterior of a NumPyro model's latent sites; see `fit_numpyro`.

    Attributes:
        posterior: of all unconstrained sites, end to end; its figures are the model's.
        constrain: flat unconstrained points (n, d) to the sites by name, deterministic ones too.
    """

    posterior: Posterior
    constrain: Callable[[np.ndarray], Sites]

    def sample(self, n: int, seed: int = 0) -> Sites:
        """n independent draws of q, arrays (n, ...) by site."""
        return self.constrain(self.posterior.sample(n, seed))

    def metropolis(self, n: int, chains: int = 4, seed: int = 0) -> Sites:
        """The states of `Posterior.metropolis`, arrays (chains, n, ...) by site."""
        points = self.posterior.metropolis(n, chains, seed).points
        found = self.constrain(points.reshape(chains * n, -1))
        return {name: a.reshape(chains, n, *a.shape[1:]) for name, a in found.items()}

    def to_arviz(self, n: int = 1000, chains: int = 4, seed: int = 0) -> Any:
        """The chains of `metropolis` as an `arviz.InferenceData`.

        Raises:
            ImportError: arviz is missing (extra `arviz`).
        """
        return require("arviz", "arviz").from_dict(self.metropolis(n, chains, seed))


def fit_numpyro(
    model: Callable[..., Any],
    *model_args: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    **options: Any,
) -> NumPyroPosterior:
    """`fit_unnormalised` for the latent sites of a NumPyro model, each on its unconstrained space.

    Args:
        model: with continuous latent sites only.
        model_args, model_kwargs: its data.
        seed: of the fit; of the model too where it draws anything itself.
        options: of `fit_unnormalised`, but those that the model decides: dim, names and bounds.

    Raises:
        ValueError: the model has no continuous latent site, or a discrete one; or as
            `fit_unnormalised`.
        ImportError: NumPyro is missing (extra `numpyro`).
    """
    handlers = require("numpyro.handlers", "numpyro")
    util = require("numpyro.infer.util", "numpyro")
    taken = {"log_density", "dim", "names", "bounds"} & set(options)
    if taken:
        raise TypeError(f"options: expected none of {sorted(taken)}, which the model decides.")
    with precision(options.get("dtype", "float64")):
        given, named = jax.tree.map(_of_this_precision, (model_args, dict(model_kwargs or {})))
        key = jax.random.key(seed)
        _refuse_discrete(handlers.trace(handlers.seed(model, key)).get_trace(*given, **named))
        found = util.initialize_model(key, model, model_args=given, model_kwargs=named)
        latent = found.param_info.z
        flat, unravel = ravel_pytree(latent)
    names = _names(latent)

    def log_density(point: Float[Array, " d"]) -> Array:
        return -found.potential_fn(unravel(point))

    transform = jax.jit(jax.vmap(lambda row: found.postprocess_fn(unravel(row))))

    def constrain(points: Float[np.ndarray, "n d"]) -> Sites:
        with precision(options.get("dtype", "float64")):
            sites = transform(jnp.asarray(points, float))
            return {name: np.asarray(value) for name, value in sites.items()}

    with made_of_stopped(lambda fitted: NumPyroPosterior(fitted, constrain)):
        fitted = fit_unnormalised(log_density, flat.size, names=names, seed=seed, **options)
    return NumPyroPosterior(fitted, constrain)


def _of_this_precision(value: Any) -> Any:
    """NumPy's numbers as JAX's: programs would keep the precision they first met them in."""
    numbers = isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    return jnp.asarray(value) if numbers else value


def _refuse_discrete(trace: Mapping[str, Any]) -> None:
    sampled = [x for x in trace.values() if x["type"] == "sample" and not x["is_observed"]]
    discrete = [site["name"] for site in sampled if site["fn"].support.is_discrete]
    if discrete or not sampled:
        told = f"discrete ones: {', '.join(discrete)}" if discrete else "none"
        raise ValueError(f"model: expected continuous latent sites; got {told}.")


def _names(latent: Mapping[str, Any]) -> Sequence[str]:
    """Of the flat parameters, in the order of `ravel_pytree`: sites by name."""
    found = []
    for site in sorted(latent):
        shape = np.shape(latent[site])
        for index in np.ndindex(shape):
            found.append(site + (f"[{', '.join(map(str, index))}]" if shape else ""))
    return found
