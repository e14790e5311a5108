"""otflow: one convex stage from Q to the density of P; its inverse goes from P to Q."""

import time
from collections.abc import Callable

import numpy as np
from sklearn.base import clone

from maps.base import Maps, Task
from otflow import OTFlow
from otflow.targets import GaussianMixture
from timing.budget import fit_within

SETTINGS = {  # the dual alone where P's components are too thin for the likelihood
    2: {"learning_rate": 0.05, "batch_size": 1024},
    8: {"plan_iter": 25_000},
    32: {"plan_iter": 5_000},
}
_DUAL_ONLY = 8  # from so many dimensions on
_REGULARISER = 1e-7  # P's components are as thin as 0.004
_MOST = 6  # components
_TIMED = 100, 600  # steps of two short runs, whose difference times a step
_SHARE = 0.9  # of the time left that is planned for


def solve(task: Task) -> Maps:
    """P's density is that of a mixture fitted to its rows, where it is not known."""
    start = time.perf_counter()
    pair = task.pair
    if task.knows_p:
        density = GaussianMixture(pair.weights, pair.means, pair.covs)
    else:
        density = fitted(task.x, task.seed)
    options = {"alpha": 300.0, "patience": 10**6, "random_state": task.seed, "n_steps": 1}
    options |= SETTINGS.get(task.dim, SETTINGS[32]) | task.settings
    natural = options.pop("natural", 0.0)  # share of the time for natural-gradient steps
    model = OTFlow(target=density, standardize=False, verbose=False, max_iter=1, **options)

    def left() -> float:
        return task.seconds - (time.perf_counter() - start)

    dual_only = task.dim >= _DUAL_ONLY
    if dual_only:
        model.set_params(plan_iter=_affordable(model, task.y, left))
    model.fit(task.y)
    if not dual_only and left() > 0:
        cut = len(task.y) // 10
        model.set_params(warm_start=True, plan_iter=0)
        fit_within(model, task.y[cut:], task.y[:cut], left(), natural)
    return Maps(model.inverse_transform, model.transform)


def _affordable(model: OTFlow, y: np.ndarray, left: Callable[[], float]) -> int:
    """Steps of the dual for the time that is left, at most those asked for."""
    stamps = []
    for steps in (_TIMED[0], *_TIMED):  # the first compiles
        clone(model).set_params(plan_iter=steps).fit(y)
        stamps.append(time.perf_counter())
    (fewer, more), (first, second) = _TIMED, np.diff(stamps)
    pace = max(second - first, 1e-3) / (more - fewer)
    return int(min(model.plan_iter, max(_TIMED[0], _SHARE * left() / pace)))


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
