"""The unbalanced dual: feasible wherever it is looked at, exact for exact maps, and labelled."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow.certificates import DualConfig, certify_growth
from otflow.certificates.convex import gaussian_potential, start
from otflow.certificates.growth_dual import GrowthDual, shares_x, shares_y
from otflow.flow.growing import GrowingFlow
from otflow.reference import wfr_gaussians
from otflow.support.precision import cast, precision
from otflow.targets import GaussianMixture

QUICK = DualConfig(width=8, regression_steps=0, ascent_steps=0)  # the Gaussian map's potential
COV = np.array([[0.3, 0.1], [0.1, 0.2]])


@pytest.fixture(scope="module")
def exact():
    return wfr_gaussians([0.0, 0.0], [0.8, 0.3], COV, delta=1.0, mass_y=1.5)


def flow_of(exact, n_steps, off=0.0):
    """Steps whose potential is the exact linear one, or, with `off`, pushes sideways and back."""
    with precision("float64"):
        ends = [GaussianMixture([1.0], [m], [COV]) for m in (exact.mean_x, exact.mean_y)]
        flow = GrowingFlow.create(*ends, 1.0, n_steps, 1, jax.random.key(0), 1.0, 1.5)
        stages = flow.potential.stages
        floor = stages.floor
        turned = np.array([[0.0, off], [0.0, -off]])[:n_steps]
        new = (
            jnp.broadcast_to(math.sqrt(1 - floor) * jnp.eye(2), (n_steps, 2, 2)),
            jnp.asarray(2 * exact.tilt / n_steps + turned),
            jnp.full((n_steps, 1), -50.0),
            jnp.full(stages.stage.group_heights.shape, -50.0),
        )
        where = lambda f: (  # noqa: E731
            f.potential.stages.stage.quadratic,
            f.potential.stages.stage.slope,
            f.potential.stages.stage.ridge_heights,
            f.potential.stages.stage.group_heights,
        )
        flow = cast(eqx.tree_at(where, flow, new), "float64")
        return eqx.tree_at(lambda f: f.potential.level, flow, jnp.full(n_steps, exact.height))


@pytest.mark.slow
def test_one_step_is_exact_by_construction(exact):
    x, y = exact.sample(0, 2000), exact.mean_y + exact.sample(1, 2000)
    flow = flow_of(exact, 1)
    found = certify_growth(flow, x, y, config=QUICK)
    np.testing.assert_allclose(flow.push(x).points, exact.map(x), atol=1e-9)
    assert found.lower < exact.transport < found.upper
    assert found.line("WFR(start, what arrives)").label.startswith("proved")
    assert found.line("excess price").value == 0
    assert found.line("mass that arrives").value == pytest.approx(1.5, rel=0.1)
    low = found.line("WFR(start, wanted end), lower bound")
    assert 0.7 * exact.transport < low.interval[0] < exact.transport
    assert found.findings == ()


@pytest.mark.slow
def test_a_detour_is_found(exact):
    """Two steps that go sideways and back: the price is too high, and the bracket says so."""
    x = exact.sample(0, 2000)
    found = certify_growth(flow_of(exact, 2, off=0.6), x, config=QUICK)
    excess = found.line("excess price")
    assert 0 <= excess.value < excess.interval[1]
    assert found.lower < found.upper
    assert found.line("WFR(start, what arrives)").value == pytest.approx(found.upper, rel=0.2)


def test_the_dual_is_feasible_far_from_the_data_too(exact):
    """phi(x) + psi(y) <= c(x, y) at pairs that nothing was fitted to, from bad starts."""
    rng = np.random.default_rng(0)
    x = exact.sample(0, 300)
    with precision("float32"):
        u = gaussian_potential(start(x, 1.5 * x, 8, rng), x, 1.5 * x)
    with precision("float64"):
        dual = GrowthDual(cast(u, "float64"), jnp.asarray(0.3), 1.0)
    x, y = (3 * rng.standard_normal((1000, 2)) for _ in range(2))
    product = shares_x(dual, x)[:, None] * shares_y(dual, y, x + 5)
    angle = np.linalg.norm(x[:, None] - y, axis=2) / 2
    allowed = np.cos(np.minimum(angle, np.pi / 2)) ** 2
    far = angle >= np.pi / 2
    assert ((product >= allowed * (1 - 1e-9)) | far).all()
    near = shares_x(dual, x) * shares_y(dual, x, x)
    assert np.median(near) < 3  # and it is not empty


def test_few_rows_prove_nothing(exact):
    found = certify_growth(flow_of(exact, 1), exact.sample(0, 100))
    assert found.line("WFR(start, what arrives)").label == "estimated"
    assert any("fewer than 400" in text for text in found.findings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.zeros((39, 2))}, r"^X: expected at least 40 rows; got 39"),
        ({"Y": np.zeros((50, 1))}, r"^Y: expected shape \(n, 2\)"),
        ({"confidence": 1.0}, r"^confidence: expected a number in \(0, 1\)"),
        ({"seconds": 0.0}, r"^seconds: expected a finite number > 0"),
    ],
)
def test_refused(exact, change, message):
    given = {"flow": flow_of(exact, 1), "X": exact.sample(0, 50)} | change
    with pytest.raises(ValueError, match=message):
        certify_growth(**given)
