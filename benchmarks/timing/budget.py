"""Training within a time budget: the learning-rate schedule has to know how many steps fit."""

import time

import numpy as np
from sklearn.base import clone

from otflow import OTFlow

_EVERY = 25  # steps between validations, at which the clock is read
_SHARE = 0.93  # of the time left that is planned for; compilation takes some


def fit_within(
    model: OTFlow, x: np.ndarray, x_val: np.ndarray, seconds: float, natural: float = 0.0
) -> list[tuple[float, float]]:
    """Fit, in about so many seconds from now, and return (seconds, validation nll) pairs.

    A short run of the same settings times a step; it is part of the budget. Training stops at the
    budget's end whatever the plan was, with the best weights so far. `natural` is the share of the
    time for natural-gradient steps, at the end.
    """
    start = time.perf_counter()
    per_step, per_natural = _step_times(model, x, x_val, natural > 0)
    left = _SHARE * (seconds - (time.perf_counter() - start))
    model.set_params(max_iter=max(4 * _EVERY, int((1 - natural) * left / per_step)))
    if natural:
        model.set_params(natural_iter=max(1, int(natural * left / per_natural)))
    curve: list[tuple[float, float]] = []

    def watch(row: dict) -> None:
        now = time.perf_counter() - start
        curve.append((now, float(row["val_nll"])))
        if now > seconds and row["iteration"] > 0:
            raise KeyboardInterrupt

    try:
        model.fit(x, X_val=x_val, on_validation=watch)
    except KeyboardInterrupt:
        if not curve or curve[-1][0] < seconds:
            raise  # it was the user's
    return curve


def _step_times(
    model: OTFlow, x: np.ndarray, x_val: np.ndarray, natural: bool
) -> tuple[float, float]:
    """Seconds of a first-order step and of a natural one (0 without them), both once compiled."""
    stamps: dict[bool, list[tuple[int, float]]] = {False: [], True: []}

    def watch(row: dict) -> None:
        stamps["learning_rate" not in row].append((row["iteration"], time.perf_counter()))

    def pace(first: tuple[int, float], last: tuple[int, float]) -> float:
        return (last[1] - first[1]) / (last[0] - first[0])

    counts = {"max_iter": 4 * _EVERY, "natural_iter": 20 if natural else 0}
    clone(model).set_params(**counts).fit(x, X_val=x_val, on_validation=watch)
    slow = pace(*stamps[True][-2:]) if natural else 0.0
    return pace(stamps[False][-3], stamps[False][-1]), slow
