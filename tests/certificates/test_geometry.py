"""Jacobians, monotonicity, bending, two-sample tests: closed forms and an independent route."""

import numpy as np
import pytest

from otflow.certificates.geometry import (
    bending_directions,
    jacobian_facts,
    monotonicity_violations,
)
from otflow.certificates.sampling import push_rows
from otflow.certificates.two_sample import mmd, sliced_w2
from otflow.flow.flow import Flow
from otflow.flow.jacobian import jacobians
from otflow.reference import gaussian
from otflow.schemes import RK4, Conforming
from otflow.support.precision import precision
from tests.certificates.bad_flows import ALPHA, COV, MEAN, curved_flow, gaussian_flow
from tests.helpers import random_resnet

RNG = np.random.default_rng(0)
X = RNG.standard_normal((70, 2))


@pytest.mark.parametrize("scheme", [RK4(2), Conforming(2)], ids=["rk4", "conforming"])
def test_jacobians_against_finite_differences(scheme):
    """Central differences, step 1e-5: 1e-8."""
    with precision("float64"):
        flow = Flow(random_resnet(2, depth=1, scale=0.4), None, scheme)
    got, step = jacobians(flow, X[:8]), 1e-5
    moved = [X[:8] + s * e for e in step * np.eye(2) for s in (1, -1)]
    ends = push_rows(flow, np.concatenate(moved)).y.reshape(2, 2, 8, 2)
    difference = (ends[:, 0] - ends[:, 1]) / (2 * step)
    np.testing.assert_allclose(got, np.moveaxis(difference, 0, 2), atol=1e-8)


def test_facts_of_a_rotation_and_a_diagonal():
    c, s = np.cos(0.3), np.sin(0.3)
    found = jacobian_facts(np.array([[[c, -s], [s, c]], [[2.0, 0.0], [0.0, 0.5]]]))
    np.testing.assert_allclose(found.smallest, [c, 0.5], rtol=1e-14)
    np.testing.assert_allclose(found.asymmetry, [np.tan(0.3), 0.0], rtol=1e-14)
    np.testing.assert_allclose(found.log_det, [0.0, 0.0], atol=1e-14)


def test_bending_directions_are_the_principal_axes():
    exact, found = gaussian(MEAN, COV, ALPHA), bending_directions(jacobians(gaussian_flow(), X[:1]))
    np.testing.assert_allclose(np.abs(found @ exact.axes), np.eye(2)[::-1], atol=1e-10)


def test_monotonicity_of_linear_maps():
    assert monotonicity_violations(X, X @ np.diag([2.0, 0.1])) == 0
    assert monotonicity_violations(X, -X) == 35
    assert monotonicity_violations(X[:69], -X[:69]) == 34
    assert monotonicity_violations(X, X * 0) == 0  # rounding is no violation


def test_straightness_is_the_integral_along_the_path():
    """Swerve of size a: int |v - (T(x)-x)|^2 dt = a^2 / 2, and by differences of a fine path."""
    flow = curved_flow(0.7, 64)
    pushed = push_rows(flow, X)
    got = pushed.straightness
    np.testing.assert_allclose(got, 0.7**2 / 2, rtol=1e-3)
    path = np.asarray(flow.trajectories(X))
    v = np.diff(path, axis=0) * 64
    integral = np.mean(np.sum((v - (path[-1] - path[0])) ** 2, axis=2), axis=0)
    np.testing.assert_allclose(got, integral, rtol=5e-3)  # chords, 64 of them


class TestTwoSample:
    def test_mmd_by_the_double_sum(self):
        a, b = X[:8], X[8:14] + 0.5
        pooled = np.concatenate([a, b])
        d2 = ((pooled[:, None] - pooled) ** 2).sum(-1)
        k = np.exp(-d2 / np.median(d2[np.triu_indices(14, 1)]))
        expected = k[:8, :8].mean() + k[8:, 8:].mean() - 2 * k[:8, 8:].mean()
        assert mmd(a, b, 9).statistic == pytest.approx(expected, rel=1e-10)

    def test_sliced_w2_of_a_shift(self):
        """W2^2 of a shift along a line is (shift . line)^2, on average |shift|^2 / d."""
        shift = np.array([3.0, 4.0])
        found = sliced_w2(X, X + shift, 9, directions=4000)
        assert found.statistic == pytest.approx(12.5, rel=0.05)

    @pytest.mark.parametrize("test", [mmd, sliced_w2])
    def test_level_and_power(self, test):
        """60 pairs from one law: 5 % tests reject at most 8 times but once in 200; a shift by 1.5
        is rejected each time."""
        rng, rejected = np.random.default_rng(2), 0
        for _ in range(60):
            a, b = rng.standard_normal((2, 40, 2))
            rejected += test(a, b, 19).p_value <= 0.05
            assert test(a, b + 1.5, 19).p_value <= 0.05
        assert rejected <= 8
