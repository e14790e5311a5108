"""What a certificate was asked for, checked before any compute."""

import dataclasses
import math
import numbers
from typing import Any

import numpy as np
from jaxtyping import Float

from otflow.certificates.bracket import check_run
from otflow.certificates.budget import trainable_parameters
from otflow.certificates.fitting import DualConfig
from otflow.flow.flow import Flow
from otflow.support.checks import check_count, check_number, check_rows
from otflow.support.frames import check_names, names_of
from otflow.targets import AbstractTarget

_LEAST_ROWS, _LEAST_HOLDOUT = 40, 20


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """The arguments of `certify`, see there.

    Raises:
        ValueError, TypeError: an argument of the wrong type, shape or range.
    """

    flow: Flow
    X: Float[np.ndarray, "n d"] | None
    density: AbstractTarget | None
    entropy: float | None
    alpha: float | None
    X_holdout: Float[np.ndarray, "k d"] | None
    n: int | None
    n_train: int | None
    parameters: float | None
    seconds: float
    seed: int
    confidence: float
    config: DualConfig

    def __post_init__(self) -> None:
        _check_types(self)
        check_names("X_holdout", self.X_holdout, names_of(self.X))
        for name, least in (("X", _LEAST_ROWS), ("X_holdout", _LEAST_HOLDOUT)):
            rows = getattr(self, name)
            if rows is not None:
                object.__setattr__(self, name, check_rows(name, rows, self.flow.dim, least))
        if self.alpha is not None:
            check_number("alpha", self.alpha, positive=True)
        if self.entropy is not None:
            _check_entropy(self.entropy)
        check_run(self.seconds, self.seed, self.confidence)
        if self.parameters is not None:
            check_number("parameters", self.parameters, positive=False)
        for name, least in (("n", _LEAST_ROWS), ("n_train", 1)):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least)

    @property
    def draws(self) -> int:
        """Draws of the density to evaluate on."""
        if self.n is not None:
            return self.n
        return 2**18 if self.flow.dim <= 4 else 2**16 if self.flow.dim <= 16 else 2**15

    @property
    def training_rows(self) -> float:
        """N of the estimation error: infinite for fresh draws, NaN where nobody says."""
        if self.n_train is not None:
            return self.n_train
        return math.inf if self.density is not None else math.nan

    @property
    def effective_parameters(self) -> float:
        """p_eff of the estimation error; all parameters where it is not known."""
        if self.parameters is not None:
            return float(self.parameters)
        return trainable_parameters(self.flow.potential)

    @property
    def fit_seconds(self) -> float:
        """For each of the dual potentials."""
        return (0.35 if self.knows_objective else 0.7) * self.seconds

    @property
    def knows_objective(self) -> bool:
        """Whether J_alpha, not only the nll, is known."""
        return self.alpha is not None and (self.density is not None or self.entropy is not None)


def _check_types(task: Task) -> None:
    if not isinstance(task.flow, Flow):
        raise TypeError(f"flow: expected an otflow.Flow; got {type(task.flow).__name__}.")
    if not isinstance(task.config, DualConfig):
        raise TypeError(f"config: expected a DualConfig; got {type(task.config).__name__}.")
    if task.X is None and task.density is None:
        raise ValueError("X: expected rows, or a density to draw them from; got neither.")
    if task.density is None:
        return
    if not isinstance(task.density, AbstractTarget):
        raise TypeError(
            f"density: expected an object of otflow.targets; got {type(task.density).__name__}."
        )
    if task.density.dim != task.flow.dim:
        raise ValueError(f"density: expected dimension {task.flow.dim}; got {task.density.dim}.")


def _check_entropy(entropy: Any) -> None:
    if isinstance(entropy, bool) or not isinstance(entropy, numbers.Real):
        raise TypeError(f"entropy: expected a number of nats; got {type(entropy).__name__}.")
    if not math.isfinite(entropy):
        raise ValueError(f"entropy: expected a finite number of nats; got {entropy}.")
