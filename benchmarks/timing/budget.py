"""Training within a time budget: the learning-rate schedule has to know how many steps fit."""

import time

import numpy as np
from sklearn.base import clone

from otflow import OTFlow

_EVERY = 25  # steps between validations, at which the clock is read
_SHARE = 0.93  # of the time left that is planned for; compilation takes some


def fit_within(
    model: OTFlow, x: np.ndarray, x_val: np.ndarray, seconds: float
) -> list[tuple[float, float]]:
    """Fit, in about so many seconds from now, and return (seconds, validation nll) pairs.

    A short run of the same settings times a step; it is part of the budget. Training stops at the
    budget's end whatever the plan was, with the best weights so far.
    """
    start, stamps = time.perf_counter(), []
    probe = clone(model).set_params(max_iter=4 * _EVERY)
    probe.fit(x, X_val=x_val, on_validation=lambda row: stamps.append(time.perf_counter()))
    per_step = (stamps[-1] - stamps[-3]) / (2 * _EVERY)
    left = seconds - (time.perf_counter() - start)
    model.set_params(max_iter=max(4 * _EVERY, int(_SHARE * left / per_step)))
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
