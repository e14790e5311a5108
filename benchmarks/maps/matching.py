"""torchcfm's minibatch optimal-transport flow matching; torchcfm is in the extra `bench`."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher

from maps.base import Map, Maps, Task

BATCH = 256  # its plan is exact, and its cost cubic
_STEPS = 100  # of Euler


def solve(task: Task) -> Maps:
    """From P to Q, and the same field backwards."""
    streams = [task.batches(of_p, BATCH, k) for k, of_p in enumerate((True, False))]
    field = train(*streams, task.dim, task.seconds, task.seed)
    return Maps(along(field, 1), along(field, -1))


def train(
    x: Iterator[np.ndarray], y: Iterator[np.ndarray], d: int, seconds: float, seed: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The velocity as a network of (x, t), trained for so many seconds on batches of both."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - POT's plan is sampled by NumPy's global generator
    sizes = [(d + 1, 64), (64, 64), (64, 64)]
    layers = [part for a, b in sizes for part in (torch.nn.Linear(a, b), torch.nn.SELU())]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(64, d))
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=0.1)
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        pair = (torch.as_tensor(next(rows), dtype=torch.float32) for rows in (x, y))
        t, xt, ut = matcher.sample_location_and_conditional_flow(*pair)
        loss = (net(torch.cat([xt, t[:, None]], 1)) - ut).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net


def along(field: Callable[[torch.Tensor], torch.Tensor], sign: int) -> Map:
    """Euler steps with the field, forwards (1) or backwards (-1)."""

    def apply(rows: np.ndarray) -> np.ndarray:
        z = torch.as_tensor(rows, dtype=torch.float32)
        with torch.no_grad():
            for k in range(_STEPS):
                t = k / _STEPS if sign > 0 else 1 - k / _STEPS
                z = z + sign * field(torch.cat([z, torch.full((len(z), 1), t)], 1)) / _STEPS
        return z.numpy().astype(float)

    return apply
