"""OT-Flow in plain PyTorch (benchmarks/torch_otflow.py): RK4 with the trace at every stage."""

from torch import Tensor, nn

import torch_otflow
from peers.base import Level, Setup
from peers.torch_base import TorchContestant

_TIGHT = 64


class PlainTorch(TorchContestant):
    """Adam as in the published toy script: rate 0.1, halved ten times over the run."""

    levels = (2, 4, 8, 16, 32)
    first_rate = 0.1

    def network(self, d: int, setup: Setup) -> nn.Module:
        """The published potential."""
        return torch_otflow.Potential(d, setup.width, setup.depth)

    def rate(self, iteration: int) -> float:
        """Halved every tenth of the run, as published (every 100 of 1,000 steps)."""
        return self.first_rate * 0.5 ** (iteration // max(1, self.setup.total_steps // 10))

    def loss(self, x: Tensor) -> Tensor:
        """transport + alpha nll + beta hjb."""
        costs = torch_otflow.mean_costs(torch_otflow.push(self.net, x, self.setup.n_steps))
        return costs.transport + self.setup.alpha * costs.nll + self.setup.beta * costs.hjb

    def density(self, net: nn.Module, x: Tensor, level: Level, tight: bool) -> Tensor:
        """Minus the nll."""
        return -torch_otflow.push(net, x, self._steps(level, tight)).nll

    def pull(self, net: nn.Module, z: Tensor, level: Level, tight: bool) -> Tensor:
        """RK4 backwards in time, by gradients alone."""
        return torch_otflow.pull(net, z, self._steps(level, tight))

    def _steps(self, level: Level, tight: bool) -> int:
        return _TIGHT if tight else self.setup.n_steps if level is None else int(level)
