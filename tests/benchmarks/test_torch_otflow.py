"""The PyTorch peer against the published code's own outputs and automatic differentiation."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[2]
OFFICIAL = ROOT.parent / "shared" / "data" / "official_swissroll.npz"
RTOL = 1e-10  # what SPEC.md asks of float64; the figures measured are below 1e-12


def load_peer():
    """Import benchmarks/torch_otflow.py, which is not part of the package."""
    spec = importlib.util.spec_from_file_location(
        "torch_otflow", ROOT / "benchmarks" / "torch_otflow.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


peer = load_peer()


@pytest.fixture(scope="module")
def official():
    if not OFFICIAL.exists():
        pytest.skip(f"needs {OFFICIAL.name}")
    with np.load(OFFICIAL) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="module")
def published(official):
    prefix = "param/"
    return peer.Potential.from_published(
        {name[len(prefix) :]: value for name, value in official.items() if name.startswith(prefix)}
    )


def random_potential(d: int, depth: int):
    """A float64 potential with every parameter random, biases and linear term included."""
    generator = torch.Generator().manual_seed(7)
    potential = peer.Potential(d, width=9, depth=depth, rank=3).double()
    with torch.no_grad():
        for parameter in potential.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.5 * noise)
    return potential


def points(n: int, d: int):
    generator = torch.Generator().manual_seed(1)
    return torch.randn((n, d), generator=generator, dtype=torch.float64)


def test_official_potential(official, published) -> None:
    s = torch.as_tensor(np.column_stack((official["x"], official["t"])))
    with torch.no_grad():
        gradient, laplacian = published.gradient_and_laplacian(s)
        value = published(s)
    np.testing.assert_allclose(value, official["value"], rtol=RTOL)
    np.testing.assert_allclose(gradient, official["gradient"], rtol=RTOL)
    np.testing.assert_allclose(laplacian, official["laplacian"], rtol=RTOL)


def test_official_flow(official, published) -> None:
    with torch.no_grad():
        pushed = peer.push(published, torch.as_tensor(official["x"]), int(official["n_steps"]))
        costs = peer.mean_costs(pushed)
    np.testing.assert_allclose(pushed.x, official["pushed"], rtol=RTOL)
    for name in ("log_det", "transport", "hjb", "nll"):
        np.testing.assert_allclose(getattr(pushed, name), official[name], rtol=RTOL)
    means = np.array([costs.transport, costs.nll, costs.hjb])
    np.testing.assert_allclose(means, official["costs"], rtol=RTOL)
    np.testing.assert_allclose(official["alpha"] @ means, official["objective"], rtol=RTOL)


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("d", [1, 3])
def test_gradient_and_laplacian_against_autograd(d: int, depth: int) -> None:
    potential = random_potential(d, depth)
    s = torch.cat((points(5, d), torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]), dim=1)
    gradient, laplacian = potential.gradient_and_laplacian(s)
    for row, g, trace in zip(s, gradient, laplacian, strict=True):

        def value(point):
            return potential(point[None])[0]

        # Two exact formulas for one number in float64: rounding only.
        torch.testing.assert_close(g, torch.func.grad(value)(row), rtol=1e-11, atol=1e-12)
        hessian = torch.func.jacrev(torch.func.grad(value))(row)[:d, :d]
        torch.testing.assert_close(trace, torch.trace(hessian), rtol=1e-11, atol=1e-12)


def test_log_det_is_that_of_the_map() -> None:
    potential = random_potential(2, 2)
    x = points(4, 2)
    pushed = peer.push(potential, x, 64)
    jacobian = torch.func.vmap(
        torch.func.jacrev(lambda point: peer.push(potential, point[None], 64).x[0])
    )(x)
    # Both are fourth order in a step of 1/64.
    torch.testing.assert_close(
        pushed.log_det, torch.linalg.slogdet(jacobian).logabsdet, rtol=0, atol=1e-5
    )


def test_quadratic_potential_has_a_closed_form_flow() -> None:
    # Phi = a/2 |x|^2: x(t) = exp(-a t) x, log-det -a d, transport a/4 (1 - exp(-2a)) |x|^2, and
    # hjb the same, since Phi does not depend on t.
    potential = peer.Potential(2, width=3, depth=1, rank=2).double()
    a = 0.8
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.zero_()
        potential.A[0, 0] = potential.A[1, 1] = a**0.5
    x = points(6, 2)
    pushed = peer.push(potential, x, 100)
    action = a / 4 * (1 - np.exp(-2 * a)) * x.square().sum(dim=1)
    # Fourth order with a step of 1/100: about 1e-10.
    torch.testing.assert_close(pushed.x, np.exp(-a) * x, rtol=1e-8, atol=0)
    torch.testing.assert_close(pushed.log_det, torch.full_like(action, -2 * a))
    torch.testing.assert_close(pushed.transport, action, rtol=1e-8, atol=0)
    torch.testing.assert_close(pushed.hjb, action, rtol=1e-8, atol=0)


def test_steps_descend_and_repeat() -> None:
    x = 2 * points(64, 2).float() + 1

    def train():
        torch.manual_seed(0)
        before = torch.random.get_rng_state()
        step, state = peer.make_step(2, 8, 1, 4, alpha=10.0, beta=1.0, seed=3)
        assert torch.equal(before, torch.random.get_rng_state())
        assert state.potential.w.dtype == torch.float32
        history = [step(x) for _ in range(30)]
        return [float(c.transport + 10 * c.nll + c.hjb) for c in history], state

    objectives, state = train()
    repeated, _ = train()
    assert objectives == repeated
    # 10 times the entropy of the points, about 42, bounds the end from below; the start is 65.
    assert objectives[-1] < 0.8 * objectives[0]
    assert (
        len(state.optimiser.state) == len(list(state.potential.parameters())) - 1
    )  # c has no force
    assert state.potential.c == 0


def test_step_objective_gradient_against_finite_differences() -> None:
    alpha, beta = 3.0, 0.5
    x = points(8, 2)
    step, state = peer.make_step(
        2, 5, 2, 3, alpha, beta, seed=1, learning_rate=0.0, dtype=torch.float64
    )
    step(x)
    weight = state.potential.residual[0].weight

    def objective(shift: float) -> float:
        with torch.no_grad():
            weight[0, 1] += shift
            costs = peer.mean_costs(peer.push(state.potential, x, 3))
            weight[0, 1] -= shift
        return float(costs.transport + alpha * costs.nll + beta * costs.hjb)

    difference = (objective(1e-5) - objective(-1e-5)) / 2e-5
    # Central differences: 1e-10 from the step squared, 1e-10 from rounding, hjb's kink aside.
    assert float(weight.grad[0, 1]) == pytest.approx(difference, rel=1e-6)


@pytest.mark.parametrize(
    "sizes", [{"d": 0}, {"width": 0}, {"depth": 0}, {"n_steps": 0}], ids=lambda sizes: str(sizes)
)
def test_sizes_must_be_positive(sizes) -> None:
    arguments = {"d": 2, "width": 4, "depth": 1, "n_steps": 2, "alpha": 1.0, "beta": 0.0, "seed": 0}
    with pytest.raises(ValueError, match=next(iter(sizes))):
        peer.make_step(**(arguments | sizes))
