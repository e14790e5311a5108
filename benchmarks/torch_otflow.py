"""OT-Flow in plain PyTorch: the peer that otflow is timed against.

Written from the formulas of the OT-Flow paper (Onken, Wu Fung, Li, Ruthotto, AAAI 2021): a ResNet
potential with its gradient and Laplacian in closed form, and classical RK4 with the trace at every
stage. The largest product, K_i J, contracts the last, contiguous axis of an (n, d, m) array.
PyTorch is no dependency of the library.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


def sigma(u: Tensor) -> Tensor:
    """log(exp(u) + exp(-u)), whose derivative is tanh, without overflow."""
    magnitude = u.abs()
    return magnitude + torch.log1p(torch.exp(-2 * magnitude))


class Potential(nn.Module):
    """Phi(s) = w'u_L(s) + 1/2 |A s|^2 + b's + c, s = (x, t): `depth` layers of `width` units."""

    def __init__(self, d: int, width: int, depth: int, rank: int = 10):
        super().__init__()
        if min(d, width, depth, rank) < 1:
            raise ValueError(f"Expected positive sizes; got {d=}, {width=}, {depth=}, {rank=}.")
        self.d, self.depth = d, depth
        self.opening = nn.Linear(d + 1, width)
        self.residual = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.w = nn.Parameter(torch.ones(width))
        self.A = nn.Parameter(nn.init.xavier_uniform_(torch.empty(min(rank, d + 1), d + 1)))
        self.b = nn.Parameter(torch.zeros(d + 1))
        self.c = nn.Parameter(torch.zeros(()))

    @classmethod
    def from_published(cls, state: Mapping[str, np.ndarray]) -> "Potential":
        """Build the float64 potential that a state dictionary of the published code describes."""
        width, inputs = state["N.layers.0.weight"].shape
        depth = sum(name.startswith("N.layers.") and name.endswith(".weight") for name in state) - 1
        potential = cls(inputs - 1, width, depth).double()
        renamed = {
            "A": state["A"],
            "b": state["c.weight"].reshape(-1),
            "c": state["c.bias"].reshape(()),
            "w": state["w.weight"].reshape(-1),
            "opening.weight": state["N.layers.0.weight"],
            "opening.bias": state["N.layers.0.bias"],
        }
        for i in range(depth):
            for kind in ("weight", "bias"):
                renamed[f"residual.{i}.{kind}"] = state[f"N.layers.{i + 1}.{kind}"]
        potential.load_state_dict({name: torch.as_tensor(value) for name, value in renamed.items()})
        return potential

    def forward(self, s: Tensor) -> Tensor:
        """Value at s of shape (n, d+1): shape (n,)."""
        u = sigma(self.opening(s))
        for layer in self.residual:
            u = u + sigma(layer(u)) / self.depth
        quadratic = 0.5 * (s @ self.A.T).square().sum(dim=1)
        return u @ self.w + quadratic + s @ self.b + self.c

    def gradient(self, s: Tensor) -> Tensor:
        """Gradient in s, shape (n, d+1), at s of shape (n, d+1)."""
        return self._passes(s)[0]

    def _passes(self, s: Tensor) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """The gradient; slopes of the opening and of every layer; z_1, ..., z_(L+1)."""
        h = 1.0 / self.depth
        # Forwards: the slopes sigma' = tanh at every layer; the last u is not needed.
        opening = self.opening(s)
        slope_0 = torch.tanh(opening)
        slopes = []
        u = sigma(opening)
        for i, layer in enumerate(self.residual):
            inner = layer(u)
            slopes.append(torch.tanh(inner))
            if i + 1 < self.depth:
                u = u + h * sigma(inner)

        # Backwards: z_i = z_(i+1) + h K_i'(slope_i z_(i+1)); the trace needs z_(i+1) at layer i.
        z = self.w.expand_as(slope_0)
        adjoints = [z] * (self.depth + 1)
        for i in reversed(range(self.depth)):
            z = z + h * (slopes[i] * z) @ self.residual[i].weight
            adjoints[i] = z
        gradient = (slope_0 * z) @ self.opening.weight + (s @ self.A.T) @ self.A + self.b
        return gradient, slope_0, slopes, adjoints

    def gradient_and_laplacian(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient in s, shape (n, d+1), and Laplacian in x, shape (n,), at s of shape (n, d+1)."""
        h = 1.0 / self.depth
        gradient, slope_0, slopes, adjoints = self._passes(s)

        # Forwards again: the trace, with J = du/dx of shape (n, d, m).
        K_x = self.opening.weight[:, : self.d]
        laplacian = ((1 - slope_0.square()) * adjoints[0]) @ K_x.square().sum(dim=1)
        J = slope_0[:, None, :] * K_x.T
        for i, layer in enumerate(self.residual):
            KJ = functional.linear(J, layer.weight)
            weight = (1 - slopes[i].square()) * adjoints[i + 1]
            laplacian = laplacian + h * (weight * KJ.square().sum(dim=1)).sum(dim=1)
            if i + 1 < self.depth:
                J = J + h * slopes[i][:, None, :] * KJ
        return gradient, laplacian + self.A[:, : self.d].square().sum()


@dataclass(frozen=True)
class Pushed:
    """End of the flow: points (n, d); log-determinant, transport and hjb along it, (n,) each."""

    x: Tensor
    log_det: Tensor
    transport: Tensor
    hjb: Tensor

    @property
    def nll(self) -> Tensor:
        """Negative log-likelihood under a standard normal target, in nats: shape (n,)."""
        d = self.x.shape[1]
        return 0.5 * self.x.square().sum(dim=1) + 0.5 * d * math.log(2 * math.pi) - self.log_det


@dataclass(frozen=True)
class Costs:
    """Batch means of the three costs (zero-dimensional tensors)."""

    transport: Tensor
    nll: Tensor
    hjb: Tensor


def rates(potential: Potential, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Velocity (n, d) and the rates (n, 3) of log-determinant, transport and hjb at time t."""
    d = potential.d
    gradient, laplacian = potential.gradient_and_laplacian(functional.pad(x, (0, 1), value=t))
    velocity = -gradient[:, :d]
    kinetic = 0.5 * velocity.square().sum(dim=1)
    residual = (gradient[:, d] - kinetic).abs()
    return velocity, torch.stack((-laplacian, kinetic, residual), dim=1)


def push(potential: Potential, x: Tensor, n_steps: int) -> Pushed:
    """Carry x from time 0 to 1 in n_steps classical RK4 steps, with the trace at every stage."""
    h = 1.0 / n_steps
    total = x.new_zeros(len(x), 3)
    for k in range(n_steps):
        t = k * h
        v_1, r_1 = rates(potential, x, t)
        v_2, r_2 = rates(potential, x + h / 2 * v_1, t + h / 2)
        v_3, r_3 = rates(potential, x + h / 2 * v_2, t + h / 2)
        v_4, r_4 = rates(potential, x + h * v_3, t + h)
        x = x + h / 6 * (v_1 + 2 * (v_2 + v_3) + v_4)
        total = total + h / 6 * (r_1 + 2 * (r_2 + r_3) + r_4)
    return Pushed(x, *total.unbind(dim=1))


def pull(potential: Potential, y: Tensor, n_steps: int) -> Tensor:
    """Carry y from time 1 back to 0 in n_steps classical RK4 steps, without the trace."""

    def velocity(x: Tensor, t: float) -> Tensor:
        return -potential.gradient(functional.pad(x, (0, 1), value=t))[:, : potential.d]

    h = -1.0 / n_steps
    for k in range(n_steps):
        t = 1.0 + k * h
        v_1 = velocity(y, t)
        v_2 = velocity(y + h / 2 * v_1, t + h / 2)
        v_3 = velocity(y + h / 2 * v_2, t + h / 2)
        v_4 = velocity(y + h * v_3, t + h)
        y = y + h / 6 * (v_1 + 2 * (v_2 + v_3) + v_4)
    return y


def mean_costs(pushed: Pushed) -> Costs:
    """Batch means of transport, nll and hjb."""
    return Costs(pushed.transport.mean(), pushed.nll.mean(), pushed.hjb.mean())


@dataclass(frozen=True)
class TrainingState:
    """What a step changes in place: the potential's parameters and Adam's moments."""

    potential: Potential
    optimiser: torch.optim.Adam


def make_step(
    d: int,
    width: int,
    depth: int,
    n_steps: int,
    alpha: float,
    beta: float,
    seed: int,
    *,
    learning_rate: float = 0.01,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> tuple[Callable[[Tensor], Costs], TrainingState]:
    """Prepare one Adam step on transport + alpha nll + beta hjb.

    Returns `step`, which takes a batch (n, d), updates the state in place and returns the costs
    before the update, and that state. The caller's global random state is left as it was.
    """
    if n_steps < 1:
        raise ValueError(f"Expected n_steps to be positive; got {n_steps}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        potential = Potential(d, width, depth)
    potential = potential.to(device=device, dtype=dtype)
    optimiser = torch.optim.Adam(potential.parameters(), lr=learning_rate)

    def step(x: Tensor) -> Costs:
        optimiser.zero_grad(set_to_none=True)
        costs = mean_costs(push(potential, x, n_steps))
        (costs.transport + alpha * costs.nll + beta * costs.hjb).backward()
        optimiser.step()
        return Costs(costs.transport.detach(), costs.nll.detach(), costs.hjb.detach())

    return step, TrainingState(potential, optimiser)
