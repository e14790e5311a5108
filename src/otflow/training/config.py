"""What a training run is asked to do, checked before any compute."""

import dataclasses

from otflow.support.checks import check_count, check_number


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Hyperparameters of a run.

    Attributes:
        alpha: weight of the nll, > 0.
        beta: weight, >= 0, of what is 0 where trajectories are optimal: the straightness in the
            conforming scheme, hjb in rk4.
        max_iter: most optimiser steps.
        batch_size: points a step; the whole data where it is larger.
        learning_rate: peak of the schedule, > 0: short warm-up, then a cosine down to 1 %.
        validate_every: steps between validations; also the steps compiled into one call.
        patience: validations without improvement before stopping.
        weight_decay: pull of the directions of ridges and terms towards 0, >= 0, as in AdamW: times
            the learning rate, once a step. It keeps convex stages from fitting single rows.
        clip_norm: largest norm of a gradient, > 0.
        seed: of the batches' order.
        nll_tolerance: largest mean error of the nll from time integration, nats; a scheme with
            such an error is refined where step doubling finds more.
        n_probes: random directions of Hutchinson's trace in training steps of RK4; 0 is the exact
            trace. Validation is always exact.
        merging: share of the steps, in [0, 1), during which the target's components come apart
            (`AbstractTarget.merged`). Validation is always on the target itself.

    Raises:
        ValueError, TypeError: a field is out of its range.
    """

    alpha: float = 30.0
    beta: float = 0.0
    max_iter: int = 2000
    batch_size: int = 1024
    learning_rate: float = 0.01
    weight_decay: float = 0.0
    validate_every: int = 25
    patience: int = 20
    clip_norm: float = 10.0
    seed: int = 0
    nll_tolerance: float = 0.02
    n_probes: int = 0
    merging: float = 0.0

    def __post_init__(self) -> None:
        for name in ("alpha", "learning_rate", "clip_norm", "nll_tolerance"):
            check_number(name, getattr(self, name), positive=True)
        check_number("beta", self.beta, positive=False)
        check_number("weight_decay", self.weight_decay, positive=False)
        for name in ("max_iter", "batch_size", "validate_every", "patience"):
            check_count(name, getattr(self, name))
        check_count("n_probes", self.n_probes, 0)
        check_number("merging", self.merging, positive=False)
        if self.merging >= 1:
            raise ValueError(f"merging: expected a number in [0, 1); got {self.merging}.")

    def merged_share(self, iteration: int) -> float:
        """1 at the first step, 0 when `merging` of the steps are done: slower, the nearer to 0.

        Components whose distance is large against their width meet late: at a small share.
        """
        steps = self.merging * self.max_iter
        return 0.0 if iteration >= steps else (1 - iteration / steps) ** 6
