"""A chain of blocks: the blocks one after the other, as one potential."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow.flow.flow import Flow
from otflow.flow.jacobian import jacobians
from otflow.potentials import (
    ConditionalGaussian,
    ConditionalStages,
    ConvexStages,
    GaussianBase,
    ResNetPotential,
    StageChain,
)
from otflow.support.precision import precision

D = 2


def block(seed, n_steps=2, width=3):
    """Convex stages that have moved away from their start."""
    base = GaussianBase.solve(np.full(D, 0.3 * seed), (1.0 + seed) * np.eye(D), 2.0)
    stages = ConvexStages.create(base, n_steps, width, jax.random.key(seed), 1, 2)
    heights = lambda p: (p.stage.ridge_heights, p.stage.group_heights)  # noqa: E731
    return eqx.tree_at(heights, stages, tuple(h + 2.5 for h in heights(stages)))


def conditional(seed):
    base = ConditionalGaussian.solve(np.zeros(D), np.ones((D, 1)), np.eye(D), 1.0 + seed)
    return ConditionalStages.create(base, 1, 2, jax.random.key(seed))


@pytest.fixture(scope="module")
def chain():
    with precision("float64"):
        return StageChain((block(0), block(1), block(2)))


X = np.random.default_rng(0).normal(size=(7, D))


def test_a_chain_is_its_blocks_one_after_the_other(chain):
    """Points, log-determinants and transport, N times the blocks' own; float64 rounding."""
    flow = Flow(chain)
    assert (flow.scheme.n_steps, flow.dim, chain.bijective) == (6, D, True)
    found = flow.push(X)
    points, log_det, transport = X, 0.0, 0.0
    for own in chain.blocks:
        pushed = Flow(own).push(points)
        points = np.asarray(pushed.points)
        log_det = log_det + np.asarray(pushed.log_det)
        transport = transport + np.asarray(pushed.transport)
    np.testing.assert_allclose(found.points, points, rtol=1e-12)
    np.testing.assert_allclose(found.log_det, log_det, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.transport, 3 * transport, rtol=1e-12)
    np.testing.assert_allclose(flow.inverse(found.points), X, atol=1e-9)
    np.testing.assert_allclose(flow.trajectories(X)[2], Flow(chain.blocks[0]).forward(X))


def test_log_determinants_are_those_of_automatic_differentiation(chain):
    flow = Flow(chain)
    found = np.linalg.slogdet(jacobians(flow, X)).logabsdet
    np.testing.assert_allclose(flow.push(X).log_det, found, atol=1e-10)


@pytest.mark.slow
def test_a_gradient_step_is_the_image(chain):
    """Phi of SPEC 2.2: x - h grad Phi is the stage's image, whose potential is u_k."""
    with precision("float64"):
        x, t = jnp.asarray(X), 4 / 6
        image = chain.image(x, t)
        np.testing.assert_allclose(x - chain.gradient(x, t)[:, :-1] / 6, image, rtol=1e-12)
        slope = jax.grad(lambda x: chain.convex_value(x, t).sum())(x)
        np.testing.assert_allclose(slope, image, rtol=1e-12)


def test_a_condition_reaches_every_block():
    """Under rows of conditions a chain is its blocks under them, and points can be picked."""
    chain, c = StageChain((conditional(0), conditional(1))), np.arange(7.0)[:, None] / 7
    flow = Flow(chain)
    assert flow.condition_dim == 1
    points = X.astype(np.float32)
    for own in chain.blocks:
        points = np.asarray(Flow(own).forward(points, c))
    np.testing.assert_allclose(flow.forward(X, c), points, rtol=1e-5, atol=1e-6)
    some = chain.given(jnp.asarray(c)).of_points(jnp.array([4, 2]))
    np.testing.assert_allclose(Flow(some).forward(X[[4, 2]]), points[[4, 2]], rtol=1e-5, atol=1e-6)
    one = flow.given(c[3]).forward(X)[3]
    np.testing.assert_allclose(one, points[3], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="condition"):
        chain.image(jnp.asarray(X), 0.0)


@pytest.mark.parametrize(
    ("blocks", "error", "message"),
    [
        (lambda: (), TypeError, r"^blocks: expected convex stages, all of one kind; got \[\]"),
        (lambda: (block(0), conditional(1)), TypeError, "ConditionalStages', 'ConvexStages"),
        (
            lambda: (ResNetPotential.create(D, 2, 0, jax.random.key(0)),),
            TypeError,
            "ResNetPotential",
        ),
        (
            lambda: (block(0), block(1, width=4)),
            ValueError,
            "^blocks: expected stages of one shape",
        ),
        (
            lambda: (block(0), block(1, n_steps=1)),
            ValueError,
            "^blocks: expected stages of one shape",
        ),
    ],
)
def test_refused(blocks, error, message):
    given = blocks()
    with pytest.raises(error, match=message):
        StageChain(given)
