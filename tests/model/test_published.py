"""The published code's state against that code's own outputs, to the 1e-10 that SPEC 2 asks for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow import Flow
from otflow.flow.objective import costs
from otflow.model.published import from_official_state
from otflow.schemes import RK4
from otflow.support.precision import precision
from otflow.targets import StandardNormal

RTOL = 1e-10


def close(got, expected):
    """Relative to the largest entry: entries that happen to be near zero carry its rounding."""
    assert np.asarray(got).dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=0, atol=RTOL * np.abs(expected).max())


@pytest.fixture
def state(official):
    return {name: array for name, array in official.items() if name.startswith("param/")}


@pytest.mark.usefixtures("float64")
class TestPublishedOutputs:
    def test_potential(self, official, state):
        p = from_official_state(state)
        value, first, second = jax.jit(
            lambda p, x, t: (p.value(x, t), p.gradient_and_laplacian(x, t), p.hessian(x, t))
        )(p, official["x"], official["t"])
        close(value, official["value"])
        close(first.gradient, official["gradient"])
        close(first.laplacian, official["laplacian"])
        close(np.asarray(second).trace(axis1=1, axis2=2), official["laplacian"])

    def test_flow_and_costs(self, official, state):
        p = from_official_state(state)
        scheme = RK4(int(official["n_steps"]), trace="stages")
        pushed, found = jax.jit(
            lambda p, x: (scheme.push(p, x), costs(p, scheme, StandardNormal(2), x))
        )(p, official["x"])
        close(pushed.points, official["pushed"])
        close(pushed.log_det, official["log_det"])
        close(pushed.transport, official["transport"])
        close(pushed.hjb, official["hjb"])
        close(found.nll, official["nll"])
        mean = found.mean()
        close(np.array([mean.transport, mean.nll, mean.hjb]), official["costs"])
        w_transport, alpha, beta = official["alpha"]
        assert w_transport == 1
        close(mean.objective(alpha, beta), official["objective"])


def test_float64_is_kept_with_the_default_precision(official, state):
    """No context here: the flow computes in float64 because its parameters are."""
    assert jnp.zeros(1).dtype == np.float32
    flow = Flow(from_official_state(state), scheme=RK4(int(official["n_steps"]), trace="stages"))
    close(flow.forward(official["x"]), official["pushed"])
    close(flow.log_prob(official["x"]), -official["nll"])


def small_state(prefix="", dtype=np.float64):
    """A made-up state: d = 2, m = 3, L = 2."""
    rng = np.random.default_rng(0)
    shapes = {"A": (3, 3), "c.weight": (1, 3), "c.bias": (1,), "w.weight": (1, 3)}
    for i in range(3):
        shapes |= {f"N.layers.{i}.weight": (3, 3), f"N.layers.{i}.bias": (3,)}
    return {
        prefix + name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()
    }


@pytest.mark.parametrize("prefix", ["", "param/"])
def test_names_map_as_the_specification_says(prefix):
    state = small_state(prefix)
    p = from_official_state(state)
    assert (p.dim, p.width, p.depth) == (2, 3, 2)
    expected = {
        "A": p.A,
        "c.weight": p.b[None],
        "c.bias": p.c[None],
        "w.weight": p.w[None],
        **{f"N.layers.{i}.weight": K for i, K in enumerate(p.weights)},
        **{f"N.layers.{i}.bias": b for i, b in enumerate(p.biases)},
    }
    for name, array in expected.items():
        np.testing.assert_array_equal(array, state[prefix + name])


def test_float32_stays_float32():
    p = from_official_state(small_state(dtype=np.float32))
    assert p.A.dtype == p.weights[2].dtype == np.float32


@pytest.mark.parametrize("name", small_state())
def test_every_missing_name_is_reported(name):
    state = small_state()
    del state[name]
    # without the last layer's weight its bias is what stands out
    pattern = "unknown .*N.layers.2.bias" if name == "N.layers.2.weight" else f"missing .*'{name}'"
    with pytest.raises(ValueError, match=f"^arrays: .*{pattern}"):
        from_official_state(state)


@pytest.mark.parametrize("name", ["N.layers.1.scale", "N.layers.4.bias", "optimizer", "param/B"])
def test_unknown_names_are_reported(name):
    bare = name.removeprefix("param/")
    with pytest.raises(ValueError, match=rf"^arrays: missing \[\], unknown \['{bare}'\]"):
        from_official_state(small_state() | {name: np.zeros(3)})


def test_shapes_that_disagree_are_rejected():
    with pytest.raises(ValueError, match=r"^weights: expected shape"):
        from_official_state(small_state() | {"N.layers.1.weight": np.zeros((3, 4))})


def test_torch_tensors_are_accepted():
    torch = pytest.importorskip("torch")
    state = small_state()
    p = from_official_state({name: torch.from_numpy(array) for name, array in state.items()})
    expected = from_official_state(state)
    with precision("float64"):
        x = np.ones((2, 2))
        np.testing.assert_array_equal(p.gradient(x, 0.3), expected.gradient(x, 0.3))
