"""Free-form velocities in PyTorch and their solve by torchdiffeq, with the exact divergence."""

import itertools

import torch
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

EXACT_TRACE = 16  # largest d at which training takes the exact divergence, not Hutchinson's
TIGHT = 1e-9


class Velocity(nn.Module):
    """v(x, t): three hidden layers of equal width."""

    def __init__(self, d: int, width: int):
        super().__init__()
        sizes = [d + 1, width, width, width, d]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.Softplus()]
        self.net = nn.Sequential(*layers[:-1])

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """At x (n, d) and t, a scalar or (n,)."""
        time = torch.as_tensor(t, dtype=x.dtype).expand(len(x))[:, None]
        return self.net(torch.cat((x, time), dim=1))


class WithDivergence(nn.Module):
    """d/dt of (x, log-determinant); the divergence is exact without a probe, else probe'J probe."""

    def __init__(self, velocity: nn.Module, probe: Tensor | None = None):
        super().__init__()
        self.velocity, self.probe = velocity, probe

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The rates of both."""
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            x = state[0]
            x = x if x.requires_grad else x.detach().requires_grad_()
            v = self.velocity(t, x)
            if self.probe is None:
                eye = torch.eye(x.shape[1], dtype=x.dtype)[:, None].expand(-1, len(x), -1)
                rows = torch.autograd.grad(v, x, eye, create_graph=training, is_grads_batched=True)[
                    0
                ]
                divergence = torch.einsum("ini->n", rows)
            else:
                product = torch.autograd.grad(v, x, self.probe, create_graph=training)[0]
                divergence = (product * self.probe).sum(dim=1)
        return (v, divergence) if training else (v.detach(), divergence.detach())


def solve(velocity: nn.Module, x: Tensor, times: tuple[float, float], tolerance: float) -> Tensor:
    """Where x goes from times[0] to times[1], by Dormand-Prince 5(4)."""
    t = torch.tensor(times, dtype=x.dtype)
    return odeint(velocity, x, t, rtol=tolerance, atol=tolerance)[-1]


def solve_with_log_det(
    velocity: nn.Module,
    x: Tensor,
    times: tuple[float, float],
    tolerance: float,
    probe: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The same with the log-determinant; differentiable by the adjoint method while training."""
    t = torch.tensor(times, dtype=x.dtype)
    solver = odeint_adjoint if torch.is_grad_enabled() else odeint
    rates = WithDivergence(velocity, probe)
    path = solver(rates, (x, x.new_zeros(len(x))), t, rtol=tolerance, atol=tolerance)
    return path[0][-1], path[1][-1]
