"""torchcfm: optimal-transport conditional flow matching; its density needs an ODE solve."""

import torch
from torch import Tensor, nn
from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher

from peers import odes
from peers.base import Level, Setup
from peers.ffjord import FFJORD
from peers.torch_base import normal_log_prob

_PAIRED = 256  # rows that are paired exactly at once: the cost of pairing is cubic


class FlowMatching(FFJORD):
    """N(0, I) at time 0, data at time 1; batches in groups of 256, paired by exact transport."""

    def network(self, d: int, setup: Setup) -> nn.Module:
        """FFJORD's network."""
        self.matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)
        return super().network(d, setup)

    def loss(self, x: Tensor) -> Tensor:
        """Mean squared error of the velocity along the pairs' segments."""
        found = [
            self.matcher.sample_location_and_conditional_flow(torch.randn_like(part), part)
            for part in x.split(_PAIRED)
        ]
        t, xt, ut = (torch.cat(parts) for parts in zip(*found, strict=True))
        return (self.net(t, xt) - ut).square().mean()

    def density(self, net: nn.Module, x: Tensor, level: Level, tight: bool) -> Tensor:
        """Log-density with the exact divergence."""
        z, log_det = odes.solve_with_log_det(net, x, (1.0, 0.0), self._tolerance(level, tight))
        return normal_log_prob(z) + log_det

    def pull(self, net: nn.Module, z: Tensor, level: Level, tight: bool) -> Tensor:
        """Forwards in time."""
        return odes.solve(net, z, (0.0, 1.0), self._tolerance(level, tight))
