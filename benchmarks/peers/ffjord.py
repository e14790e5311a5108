"""FFJORD on torchdiffeq: a free-form velocity trained by maximum likelihood."""

import torch
from torch import Tensor, nn

from peers import odes
from peers.base import Level, Setup
from peers.torch_base import TorchContestant, normal_log_prob

_TOLERANCE = 1e-5


class FFJORD(TorchContestant):
    """Data at time 0, N(0, I) at time 1; Dormand-Prince at tolerance 1e-5, adjoint gradients."""

    levels = (1e-2, 1e-3, 1e-4, 1e-5)

    def network(self, d: int, setup: Setup) -> nn.Module:
        """Three hidden layers."""
        return odes.Velocity(d, max(64, setup.width))

    def loss(self, x: Tensor) -> Tensor:
        """Mean nll; Hutchinson's divergence above EXACT_TRACE dimensions."""
        exact = x.shape[1] <= odes.EXACT_TRACE
        probe = None if exact else torch.randint(0, 2, x.shape).to(x) * 2 - 1
        z, log_det = odes.solve_with_log_det(self.net, x, (0.0, 1.0), _TOLERANCE, probe)
        return -(normal_log_prob(z) + log_det).mean()

    def density(self, net: nn.Module, x: Tensor, level: Level, tight: bool) -> Tensor:
        """Log-density with the exact divergence."""
        z, log_det = odes.solve_with_log_det(net, x, (0.0, 1.0), self._tolerance(level, tight))
        return normal_log_prob(z) + log_det

    def pull(self, net: nn.Module, z: Tensor, level: Level, tight: bool) -> Tensor:
        """Backwards in time."""
        return odes.solve(net, z, (1.0, 0.0), self._tolerance(level, tight))

    def _tolerance(self, level: Level, tight: bool) -> float:
        return odes.TIGHT if tight else _TOLERANCE if level is None else float(level)
