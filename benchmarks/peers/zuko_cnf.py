"""zuko's continuous normalizing flow, as its documentation builds and trains it."""

import zuko
from torch import Tensor, nn

from peers.base import Level, Setup
from peers.odes import EXACT_TRACE, TIGHT
from peers.torch_base import TorchContestant, normal_log_prob


class ZukoCNF(TorchContestant):
    """zuko.flows.CNF with its default tolerances (atol 1e-6, rtol 1e-5) and two hidden layers."""

    levels = (1e-2, 1e-3, 1e-4, 1e-5)

    def network(self, d: int, setup: Setup) -> nn.Module:
        """Data to N(0, I)."""
        return zuko.flows.CNF(d, hidden_features=(max(64, setup.width),) * 2)

    def loss(self, x: Tensor) -> Tensor:
        """Mean nll; Hutchinson's divergence above EXACT_TRACE dimensions."""
        self.net.transform.exact = x.shape[1] <= EXACT_TRACE
        return -self.net().log_prob(x).mean()

    def density(self, net: nn.Module, x: Tensor, level: Level, tight: bool) -> Tensor:
        """Log-density with the exact divergence."""
        z, log_det = self._transform(net, level, tight).call_and_ladj(x)
        return normal_log_prob(z) + log_det

    def pull(self, net: nn.Module, z: Tensor, level: Level, tight: bool) -> Tensor:
        """The inverse transform."""
        return self._transform(net, level, tight).inv(z)

    def _transform(self, net: nn.Module, level: Level, tight: bool):
        net.transform.exact = True
        transform = net().transform
        tolerance = TIGHT if tight else level
        if tolerance is not None:
            transform.atol = transform.rtol = tolerance
        return transform
