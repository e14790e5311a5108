"""Independence Metropolis: the target's moments from proposals of another law."""

import numpy as np
import pytest

from otflow.estimator.metropolis import independence_metropolis


def test_chains_have_the_target_law():
    """Proposals N(0, 1.5^2), target N(0, 1): 40,000 states worth some 25,000; five errors."""
    x = 1.5 * np.random.default_rng(0).standard_normal((4, 10_000))
    found = independence_metropolis(-0.5 * x**2 + 0.5 * (x / 1.5) ** 2, seed=1)
    states = np.take_along_axis(x, found.proposal, 1)
    assert abs(states.mean()) < 5 / np.sqrt(25_000)
    assert abs(states.var() - 1) < 5 * np.sqrt(2 / 25_000)
    assert 0.5 < found.rate < 0.95
    # closed form for two independent proposals of one law: P(w' > w) + E[w'/w; w' < w]
    w = np.exp(-0.5 * x[0] ** 2 + 0.5 * (x[0] / 1.5) ** 2)
    p = w / w.sum()
    expected = float(np.minimum(1, w[None, :500] / w[:, None]).mean(axis=1) @ p)
    assert found.rate == pytest.approx(expected, abs=0.03)


def test_equal_weights_accept_everything():
    found = independence_metropolis(np.zeros((2, 50)), seed=0)
    assert found.rate == 1
    assert np.array_equal(found.proposal, np.tile(np.arange(50), (2, 1)))


def test_states_of_density_zero_are_left_at_once_and_never_entered():
    log_w = np.zeros((1, 20))
    log_w[0, [0, 5, 6]] = -np.inf
    found = independence_metropolis(log_w, seed=0).proposal[0]
    assert list(found[:8]) == [0, 1, 2, 3, 4, 4, 4, 7]


@pytest.mark.parametrize("bad", [[0.0], [[np.nan, 0.0]], [[np.inf]], [[]]], ids=str)
def test_bad_weights_are_refused(bad):
    with pytest.raises(ValueError, match="log_weights: expected"):
        independence_metropolis(np.array(bad), 0)
