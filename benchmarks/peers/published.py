"""A checkout of the published OT-Flow code, where the user has one (`--reference PATH`)."""

import os
import sys

from torch import Tensor, nn

from peers.base import Level, Setup
from peers.plain_torch import PlainTorch

sys.path.insert(0, os.environ.get("OTFLOW_BENCH_REFERENCE", ""))
from src.OTFlowProblem import C, OTFlowProblem, integrate
from src.Phi import Phi


class Published(PlainTorch):
    """Its Phi, objective and integrator, called as its own toy script calls them."""

    def network(self, d: int, setup: Setup) -> nn.Module:
        """nTh counts the opening layer too."""
        self.weights = [1.0, setup.alpha, setup.beta]
        return Phi(nTh=setup.depth + 1, m=setup.width, d=d, alph=self.weights)

    def loss(self, x: Tensor) -> Tensor:
        """The published objective."""
        steps = self.setup.n_steps
        return OTFlowProblem(x, self.net, [0, 1], nt=steps, stepper="rk4", alph=self.weights)[0]

    def density(self, net: nn.Module, x: Tensor, level: Level, tight: bool) -> Tensor:
        """Minus its terminal cost."""
        steps = self._steps(level, tight)
        end = integrate(x, net, [0.0, 1.0], steps, stepper="rk4", alph=self.weights)
        return -C(end).reshape(-1)

    def pull(self, net: nn.Module, z: Tensor, level: Level, tight: bool) -> Tensor:
        """Its integrator backwards in time."""
        steps = self._steps(level, tight)
        end = integrate(z, net, [1.0, 0.0], steps, stepper="rk4", alph=self.weights)
        return end[:, : z.shape[1]]
