"""otflow: one convex stage from Q to the density of P; its inverse goes from P to Q."""

import time

import numpy as np

from maps.base import Maps, Task
from otflow import OTFlow
from otflow.targets import GaussianMixture
from timing.budget import fit_within

SETTINGS = {  # many steps of the dual where P's components are too thin for the likelihood
    2: {"n_steps": 1, "learning_rate": 0.05, "batch_size": 1024},
    8: {"n_steps": 1, "plan_iter": 25_000, "max_iter": 1},
    32: {"n_steps": 1, "plan_iter": 5_000, "max_iter": 1},
}
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
    options = {"alpha": 300.0, "patience": 10**6, "random_state": task.seed}
    options |= SETTINGS[task.dim] | task.settings
    natural = options.pop("natural", 0.0)  # share of the time for natural-gradient steps
    model = OTFlow(target=density, standardize=False, verbose=False, **options)
    cut = len(task.y) // 10
    if options.get("max_iter") == 1:
        model.fit(task.y)
    else:
        left = task.seconds - (time.perf_counter() - start)
        fit_within(model, task.y[cut:], task.y[:cut], left, natural)
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
