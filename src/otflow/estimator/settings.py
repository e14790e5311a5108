"""The hyperparameters of `OTFlow`, checked before any compute."""

import dataclasses
from typing import Any

import numpy as np

from otflow.estimator.building import BASES, make_scheme
from otflow.estimator.defaults import POTENTIALS, decided, potential_of
from otflow.support.checks import check_count, check_number
from otflow.support.precision import precision
from otflow.targets import AbstractTarget, StandardNormal
from otflow.training import TrainingConfig

DECIDED = ("potential", "width", "beta", "learning_rate", "weight_decay", "plan_iter")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The hyperparameters of `OTFlow`, under the same names, checked; None is `resolved` later.

    Raises:
        ValueError, TypeError: one is out of its range.
    """

    alpha: float
    beta: float | None
    width: int | None
    depth: int
    scheme: str
    n_steps: int | None
    n_probes: int
    max_iter: int
    natural_iter: int
    batch_size: int
    learning_rate: float | None
    weight_decay: float | None
    patience: int
    plan_iter: int | None
    merging: float
    validation_fraction: float
    base: str | None
    dtype: Any
    standardize: bool
    warm_start: bool
    target: AbstractTarget | None
    potential: str | None
    verbose: bool

    def __post_init__(self) -> None:
        for name in ("depth", "natural_iter", "n_probes"):
            check_count(name, getattr(self, name), 0)
        if self.width is not None:
            check_count("width", self.width)
        if self.plan_iter is not None:
            check_count("plan_iter", self.plan_iter, 0)
        make_scheme(self.scheme, self.n_steps)
        if self.n_probes and self.scheme != "rk4":
            raise ValueError(
                f"n_probes: expected 0 with scheme {self.scheme!r}, whose training is exact; "
                f"got {self.n_probes}."
            )
        if self.potential not in (*POTENTIALS, None):
            raise ValueError(f"potential: expected one of {POTENTIALS}; got {self.potential!r}.")
        if self.potential == "convex" and self.scheme != "conforming":
            raise ValueError(
                f"potential: expected 'resnet' with scheme {self.scheme!r}; got 'convex', whose "
                "stages are steps of the conforming scheme."
            )
        if any(getattr(self, name) is None for name in DECIDED):
            self.resolved(1, 1)  # checked as these are
        else:
            self.training(0)
        if self.base not in BASES:
            raise ValueError(f"base: expected one of {BASES}; got {self.base!r}.")
        if self.target is not None and not isinstance(self.target, AbstractTarget):
            raise TypeError(
                f"target: expected an object of otflow.targets; got {type(self.target).__name__}."
            )
        for name in ("standardize", "verbose", "warm_start"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise TypeError(f"{name}: expected True or False; got {getattr(self, name)!r}.")
        check_number("validation_fraction", self.validation_fraction, positive=False)
        if self.validation_fraction >= 1:
            raise ValueError(
                f"validation_fraction: expected a number in [0, 1); got {self.validation_fraction}."
            )
        with precision(self.dtype):
            pass

    def resolved(self, n: int, dim: int, fresh: bool = False) -> "Settings":
        """The settings with what n rows of dim columns decide in the place of None.

        `fresh`: the rows are draws of a known density.
        """
        check_number("alpha", self.alpha, positive=True)
        potential = potential_of(self.potential, self.scheme)
        normal = self.target is None or isinstance(self.target, StandardNormal)
        found: dict[str, Any] = {"potential": potential}
        found |= decided(potential, self.alpha, n, dim, normal=normal, fresh=fresh)
        return dataclasses.replace(
            self, **{name: v for name, v in found.items() if getattr(self, name) is None}
        )

    def training(self, seed: int) -> TrainingConfig:
        """The first-order phase of resolved settings."""
        names = ["alpha", "beta", "max_iter", "batch_size", "learning_rate", "patience"]
        names += ["n_probes", "merging", "weight_decay"]
        values = {name: getattr(self, name) for name in names}
        clip = 10.0 * max(1.0, float(self.alpha))  # the gradient scales with alpha
        return TrainingConfig(**values, seed=seed, clip_norm=clip)

    def make_target(self, dim: int) -> AbstractTarget:
        """The target, checked against the data's dimension."""
        target = StandardNormal(dim) if self.target is None else self.target
        if target.dim != dim:
            raise ValueError(f"target: expected dimension {dim}; got {target.dim}.")
        return target
