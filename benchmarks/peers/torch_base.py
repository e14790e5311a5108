"""What the PyTorch contestants share: threads, Adam, chunks, a float64 copy for tight solves."""

import abc
import copy
import os

import numpy as np
import torch
from torch import Tensor, nn

from peers.base import Contestant, Level, Setup, batches, in_chunks

torch.set_num_threads(int(os.environ.get("OTFLOW_BENCH_THREADS", min(2, os.cpu_count() or 1))))


class TorchContestant(Contestant):
    """A module trained by Adam on a loss of batches."""

    @abc.abstractmethod
    def network(self, d: int, setup: Setup) -> nn.Module:
        """A new network; the global seed is set."""

    @abc.abstractmethod
    def loss(self, x: Tensor) -> Tensor:
        """What a step minimises, on a batch."""

    @abc.abstractmethod
    def density(self, net: nn.Module, x: Tensor, level: Level, tight: bool) -> Tensor:
        """Log-density of the rows."""

    @abc.abstractmethod
    def pull(self, net: nn.Module, z: Tensor, level: Level, tight: bool) -> Tensor:
        """Samples from base draws."""

    def rate(self, iteration: int) -> float:
        """Learning rate of a step; by default constant."""
        return self.setup.rate

    def build(self, x: np.ndarray, setup: Setup) -> None:
        """A new network and optimiser."""
        self.setup, self.iteration = setup, 0
        self.data = torch.as_tensor(x, dtype=torch.float32)
        torch.manual_seed(setup.seed)
        self.net = self.network(x.shape[1], setup)
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=self.rate(0))
        self.stream = batches(len(x), setup.batch, setup.seed)

    def step(self) -> None:
        """`block` steps of Adam."""
        for _ in range(self.setup.block):
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate(self.iteration)
            self.optimiser.zero_grad(set_to_none=True)
            self.loss(self.data[torch.from_numpy(next(self.stream))]).backward()
            self.optimiser.step()
            self.iteration += 1

    @property
    def weights(self) -> dict[str, Tensor]:
        """A copy of the network's tensors."""
        return copy.deepcopy(self.net.state_dict())

    @weights.setter
    def weights(self, kept: dict[str, Tensor]) -> None:
        self.net.load_state_dict(kept)

    def log_prob(self, x: np.ndarray, level: Level = None, tight: bool = False) -> np.ndarray:
        """Log-density of the rows."""
        return self._solved(self.density, x, level, tight)

    def sample(self, z: np.ndarray, level: Level = None, tight: bool = False) -> np.ndarray:
        """Samples from base draws."""
        return self._solved(self.pull, z, level, tight)

    def matmul(self, size: int) -> None:
        """One float32 product by PyTorch."""
        a = torch.ones((size, size))
        torch.mm(a, a)

    def _solved(self, function, x: np.ndarray, level: Level, tight: bool) -> np.ndarray:
        net = copy.deepcopy(self.net).double() if tight else self.net
        net.eval()
        dtype = torch.float64 if tight else torch.float32

        def rows(part: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return function(net, torch.as_tensor(part, dtype=dtype), level, tight).numpy()

        found = in_chunks(rows, x)
        self.net.train()
        return found


def normal_log_prob(z: Tensor) -> Tensor:
    """Log-density of N(0, I), nats, shape (n,)."""
    return -0.5 * (z.square() + np.log(2 * np.pi)).sum(dim=1)
