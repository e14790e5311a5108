"""otflow: one convex stage from Q to the density of P; its inverse goes from P to Q."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from maps.base import Map, Maps, Task
from otflow import OTFlow
from otflow.data.rows import Rows
from otflow.estimator.building import starting_potential
from otflow.estimator.defaults import ridges
from otflow.flow.flow import Flow
from otflow.schemes import Conforming
from otflow.support.precision import cast, precision
from otflow.targets import GaussianMixture
from otflow.training.plan import start_from_plan
from timing.budget import fit_within

ALPHA = 300.0
SETTINGS = {"alpha": ALPHA, "learning_rate": 0.05, "batch_size": 1024}  # with the likelihood
_OF_THE_DUAL = {"alpha", "width", "plan_iter"}
_DUAL_ONLY = 8  # dimensions from which P's components are too thin for the likelihood
_MOST_STEPS = 10**6  # of the dual, which stops by the clock
_REGULARISER = 1e-7  # P's components are as thin as 0.004
_MOST = 6  # components


def solve(task: Task) -> Maps:
    """P's density is that of a mixture fitted to its rows, where it is not known."""
    start = time.perf_counter()
    pair = task.pair
    if task.knows_p:
        density = GaussianMixture(pair.weights, pair.means, pair.covs)
    else:
        density = fitted(task.x, task.seed)

    def left() -> float:
        return task.seconds - (time.perf_counter() - start)

    by = _by_the_dual if task.dim >= _DUAL_ONLY else _by_the_likelihood
    return by(task, density, left)


def _by_the_dual(task: Task, density: GaussianMixture, left: Callable[[], float]) -> Maps:
    """What the plan's start makes of one stage, and nothing after it."""
    options = {"alpha": ALPHA, "width": ridges(*task.y.shape), "plan_iter": _MOST_STEPS}
    if unknown := task.settings.keys() - _OF_THE_DUAL:
        raise ValueError(f"settings: expected {_OF_THE_DUAL}; got {sorted(unknown)}.")
    options |= task.settings
    with precision("float32"):
        size = options["alpha"], options["width"], 0, "gaussian"
        potential = starting_potential(
            task.y, density, *size, jax.random.key(task.seed), n_stages=1
        )
        ends = Rows(task.y), cast(density, np.float32)
        found = start_from_plan(potential, *ends, options["plan_iter"], task.seed, seconds=left())
        flow = Flow(found, density, Conforming(1))

    def apply(map_: Callable[..., Any]) -> Map:
        return lambda rows: np.asarray(map_(rows), float)

    return Maps(apply(flow.inverse), apply(flow.forward))


def _by_the_likelihood(task: Task, density: GaussianMixture, left: Callable[[], float]) -> Maps:
    """The same start, then J."""
    options: dict[str, Any] = {"patience": 10**6, "random_state": task.seed, "n_steps": 1}
    options |= SETTINGS | task.settings
    natural = options.pop("natural", 0.0)  # share of the time for natural-gradient steps
    model = OTFlow(target=density, standardize=False, verbose=False, max_iter=1, **options)
    model.fit(task.y)
    if left() > 0:
        cut = len(task.y) // 10
        model.set_params(warm_start=True, plan_iter=0)
        fit_within(model, task.y[cut:], task.y[:cut], left(), natural)
    return Maps(model.inverse_transform, model.transform)


def fitted(x: np.ndarray, seed: int) -> GaussianMixture:
    """Expectation maximisation; a tenth of the rows chooses the number of components."""
    from sklearn.mixture import GaussianMixture as Mixture

    cut, best, highest = len(x) // 10, None, -np.inf
    for k in range(1, _MOST + 1):
        found = Mixture(k, reg_covar=_REGULARISER, random_state=seed, n_init=3).fit(x[cut:])
        if (score := found.score(x[:cut])) > highest + 1e-3:
            best, highest = found, score
    covs = 0.5 * (best.covariances_ + best.covariances_.transpose(0, 2, 1))
    return GaussianMixture(best.weights_, best.means_, covs)
