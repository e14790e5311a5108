"""A flow as a part of somebody else's JAX: transformations, precision, strict rules."""

import contextlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow import Flow
from otflow.flow.objective import costs
from otflow.potentials import ConditionalResNet, ConvexStages, GaussianBase
from otflow.schemes import RK4, Conforming
from otflow.support.precision import precision
from otflow.targets import GaussianMixture
from tests.helpers import random_resnet

X = np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32)
KEY = jax.random.key(0)
MIXTURE = ([0.3, 0.7], [[-1.0, 0.0], [1.0, 1.0]], [np.eye(2), 0.5 * np.eye(2)])


def stages(dtype="float32"):
    with precision(dtype):
        base = GaussianBase.solve(X.mean(0), np.cov(X.T), 1.0)
        return Flow(ConvexStages.create(base, 2, 4, KEY))


def network(scheme, target=None, dtype="float32"):
    with precision(dtype):
        return Flow(random_resnet(2, depth=0, seed=5, scale=0.4), target, scheme)


FLOWS = {
    "stages": stages,
    "conforming": lambda: network(Conforming(2), GaussianMixture(*MIXTURE)),
    "rk4": lambda: network(RK4(1)),
}
flows = pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=[pytest.mark.slow] * (name != "conforming"))
        for name, make in FLOWS.items()
    ],
)


@contextlib.contextmanager
def strict():
    with (
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.transfer_guard("disallow"),
    ):
        yield


@flows
def test_all_transformations_agree(make):
    """Jacobians of T and its inverse by every route, and their product is I: float32 rounding."""
    flow = make()

    def one(method):
        return lambda x: getattr(flow, method)(x[None])[0]

    @jax.jit
    def everything(x):
        y = flow.forward(x)
        back = [jax.vmap(jac(one("inverse")))(y) for jac in (jax.jacfwd, jax.jacrev)]
        there = jax.vmap(jax.jacrev(one("forward")))(x)
        return there, back, jax.jvp(flow.forward, (x,), (jnp.ones_like(x),))[1]

    there, back, along = everything(X)
    np.testing.assert_allclose(back[0], back[1], atol=1e-5)
    np.testing.assert_allclose(there @ back[0], np.tile(np.eye(2), (4, 1, 1)), atol=1e-4)
    np.testing.assert_allclose(along, there.sum(axis=2), atol=1e-5)


def test_a_sample_moves_with_the_target():
    """d sample / d mean is the inverse's Jacobian: reparametrised gradients."""
    potential = network(RK4(2)).potential

    def draws(mean):
        target = GaussianMixture(*MIXTURE)
        means = jnp.asarray(MIXTURE[1], jnp.float32) + mean
        moved = eqx.tree_at(lambda t: t.means, target, means)
        return Flow(potential, moved, RK4(2)).sample(KEY, 3)

    zero = jnp.zeros(2)
    found = jax.jit(jax.jacfwd(draws))(zero)
    step = np.array([1e-2, 0.0], np.float32)
    compiled = jax.jit(draws)
    np.testing.assert_allclose(
        found[..., 0], (compiled(step) - compiled(-step)) / 2e-2, rtol=1e-2, atol=1e-3
    )


def test_slopes_in_the_condition():
    """Where the condition alone is traced."""
    with precision("float32"):
        plain = random_resnet(2, depth=0, seed=5, scale=0.3)
        flow = Flow(ConditionalResNet(plain, jnp.ones((6, 1)), jnp.ones((3, 1))))
    total = jax.jit(lambda c: flow.inverse(X, c).sum())
    slope = jax.jit(jax.grad(lambda c: flow.inverse(X, c).sum()))(jnp.zeros(1))
    difference = (total(jnp.full(1, 1e-2)) - total(jnp.full(1, -1e-2))) / 2e-2
    np.testing.assert_allclose(slope[0], difference, rtol=1e-2)
    assert abs(difference) > 0.1


def test_nothing_traced_within_a_compiled_function():
    flow = network(RK4(2))
    found = jax.jit(lambda: flow.log_prob(X))()
    np.testing.assert_allclose(found, flow.log_prob(X), rtol=1e-5)


TRACED = {
    "jit": lambda flow: jax.jit(lambda x: flow.log_prob(x))(X),
    "jit of points at hand": lambda flow: jax.jit(lambda: flow.forward(X))(),
    "jit of sample": lambda flow: jax.jit(lambda key: flow.sample(key, 3))(KEY),
    "jit of both": lambda flow: jax.jit(lambda key: flow.sample_and_log_prob(key, 3))(KEY),
    "jit of trajectories": lambda flow: jax.jit(lambda x: flow.trajectories(x))(X),
    "grad": lambda flow: jax.grad(lambda x: flow.inverse(x).sum())(X),
    "vmap": lambda flow: jax.vmap(lambda x: flow.pull(x[None]).points)(X),
}


@pytest.mark.parametrize("call", TRACED.values(), ids=TRACED)
def test_float64_needs_jax_to_have_it(call):
    """What JAX would do in float32 is refused, and the message says how to have float64."""
    flow = network(RK4(1), dtype="float64")
    with pytest.raises(ValueError, match=r"^dtype: expected a .* float32 .*got float64\..*x64"):
        call(flow)


def test_float64_within_its_context():
    flow = network(RK4(1), dtype="float64")
    expected = flow.log_prob(X)
    with precision("float64"):
        found = jax.jit(lambda x: flow.log_prob(x))(X.astype(float))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@flows
def test_strict_rules_of_the_caller(make):
    """Types, ranks and transfers that JAX refuses in the caller's code are the library's own."""
    x, flow = jnp.asarray(X), make()
    with strict():
        assert make().log_prob(x).shape == (4,)
        flow.sample(KEY, 4)
        # the rules of `jit` are traced here, those of its derivatives after the flow has returned
        for method in ("log_prob", "inverse"):
            call = jax.jit(lambda x, method=method: getattr(flow, method)(x))
            jax.vjp(call, x)[1](call(x))
        jax.jit(lambda x: jax.jvp(flow.forward, (x,), (x,))[1])(x)
        jax.jit(lambda x: costs(flow.potential, flow.scheme, flow.target, x).mean())(x)


def test_strict_rules_stay_those_of_the_caller():
    flow, matrix = network(RK4(1)), jnp.ones((2, 2))
    with jax.numpy_rank_promotion("raise"):
        flow.log_prob(X)
        with pytest.raises(ValueError, match="rank_promotion"):
            matrix[0] + matrix
