"""The blocks of a chain: how many, how strong, and what each came to (SPEC 7)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

from otflow.support.checks import check_count, check_number, check_real
from otflow.support.statistics import Estimate

MOST_BLOCKS = 12  # with "auto"
LEAST_GAIN = 0.05  # nats, that a block more has to be worth
_FIRST, _MOST = 1.0, 1000.0  # tau, where it is not set
_GROWTH = 4.0  # of tau, at most, from block to block


@dataclasses.dataclass(frozen=True)
class Block:
    """What one block of a chain came to.

    Attributes:
        tau: its penalty.
        way: root mean square way of the training rows, units of the flow's space. With one step a
            block, which is Brenier's map, it is W2 between the rows' laws before and after.
        gain: held-out nll of the chain without the block less that with it, nats (of the training
            rows where none are held out).
        gain_error: its standard error, as the mean of paired differences.
        n_iter: steps behind the weights.
        status: why its training stopped.
    """

    tau: float
    way: float
    gain: float
    gain_error: float
    n_iter: int
    status: str

    def __post_init__(self) -> None:
        for name in ("tau", "way", "gain", "gain_error"):
            check_real(name, getattr(self, name))
        check_count("n_iter", self.n_iter, 0)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the gain."""
        return Estimate(self.gain, self.gain_error).interval

    @property
    def worth_it(self) -> bool:
        """Whether the whole interval is above what a block more has to gain."""
        return self.interval[0] > LEAST_GAIN


@dataclasses.dataclass(frozen=True)
class ChainPlan:
    """How many blocks, of which penalty, and for how long they are trained together at the end.

    Raises:
        ValueError, TypeError: a field is out of its range.
    """

    blocks: int | Literal["auto"]
    tau: float | None
    joint_iter: int

    def __post_init__(self) -> None:
        if isinstance(self.blocks, str) and self.blocks != "auto":
            raise ValueError(f"blocks: expected an integer >= 1 or 'auto'; got {self.blocks!r}.")
        if not isinstance(self.blocks, str):
            check_count("blocks", self.blocks)
        if self.tau is not None:
            check_number("tau", self.tau, positive=True)
        check_count("joint_iter", self.joint_iter, 0)

    @property
    def automatic(self) -> bool:
        """Whether held-out rows say how many blocks there are to be."""
        return self.blocks == "auto"

    @property
    def most(self) -> int:
        """Blocks, at most."""
        return MOST_BLOCKS if isinstance(self.blocks, str) else int(self.blocks)

    def next_tau(self, blocks: Sequence[Block]) -> float:
        """The penalty of the next block.

        Where it is not set, such that the rows go as far as in the first block, as far as the last
        one tells: KL and forces fall along the chain, so tau grows.
        """
        if self.tau is not None:
            return float(self.tau)
        if not blocks:
            return _FIRST
        growth = blocks[0].way / max(blocks[-1].way, 1e-12)
        return min(blocks[-1].tau * min(max(growth, 1.0), _GROWTH), _MOST)


def strength(blocks: Sequence[Any]) -> float:
    """alpha = prod (1 + tau) - 1: of the one step that contracts the KL as all of them do."""
    return math.expm1(sum(math.log1p(block.tau) for block in blocks))
