"""What the data decide where a setting of `OTFlow` is None: in this place only."""

import math
from typing import Any

from otflow.potentials.stages import GROUP_SIZE, GROUPS

POTENTIALS = ("convex", "resnet")
_RESNET: dict[str, Any] = {
    "width": 64,
    "beta": 0.0,
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "plan_iter": 0,
}
_LEAST_RIDGES, _MOST_RIDGES = 16, 192
_STRAIGHT = 3.0  # beta / alpha: toys' paths bend by 2 to 4 %
_CROWDED = 0.1  # directions' numbers a row and stage from which rows are learned by heart
_DECAY = 0.15  # gas turbine 0.05, digits 0.5
_PLAN_STEPS = 1000


def potential_of(potential: str | None, scheme: str) -> str:
    """ "convex" where the scheme is made of steps, which convex stages are; "resnet" with rk4."""
    if potential is not None:
        return potential
    return "convex" if scheme == "conforming" else "resnet"


def decided(
    potential: str, alpha: float, n: int, dim: int, *, normal: bool, fresh: bool
) -> dict[str, Any]:
    """What is used for n rows of dim columns; see `benchmarks/choose.py`.

    Args:
        potential: "convex" or "resnet".
        alpha: weight of the nll.
        n: training rows.
        dim: columns.
        normal: the target is N(0, I); others have components that a large step throws mass out of.
        fresh: the rows are draws of a known density, of which there is no end to fit too closely.
    """
    if potential == "resnet":
        return dict(_RESNET)
    rate = 0.05 if normal else 0.005
    width = ridges(n, dim)
    crowding = (width + GROUPS * GROUP_SIZE) * dim / n
    crowded = normal and not fresh and crowding > _CROWDED
    decay = min(1.0, round(_DECAY * math.sqrt(crowding), 3)) if crowded else 0.0
    found = {"width": width, "beta": _STRAIGHT * float(alpha)}
    found |= {"learning_rate": rate, "weight_decay": decay}
    return found | {"plan_iter": 0 if normal else _PLAN_STEPS}


def ridges(n: int, dim: int) -> int:
    """Ridges a stage, a multiple of 16: sqrt(n), 1 to 32 a column, and 16 to 192 in all."""
    wanted = min(max(math.isqrt(n), dim), 32 * dim)
    return min(max(16 * round(wanted / 16), _LEAST_RIDGES), _MOST_RIDGES)
