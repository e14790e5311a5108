"""Weighted points beyond what draws reach: unbiased, bounded, and where the gap is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from otflow.flow.wide import Wide, WideBatches, stretch, wide_points
from otflow.reference import density_1d, gaussian, product_mixture
from otflow.support.precision import precision
from otflow.targets import GaussianMixture, StandardNormal

MEANS, COVS = np.array([[-2.0, 1.0], [1.5, 0.0]]), np.array([0.25 * np.eye(2), 0.5 * np.eye(2)])


def density():
    with precision("float64"):
        return GaussianMixture([0.4, 0.6], MEANS, COVS)


def by_hand(x, centre):
    """The weights from SciPy's densities."""

    def rho0(at):
        parts = [stats.multivariate_normal(m, c).pdf(at) for m, c in zip(MEANS, COVS, strict=True)]
        return 0.4 * parts[0] + 0.6 * parts[1]

    s = stretch(2)
    return rho0(x) / (0.75 * rho0(x) + 0.25 * rho0(centre + (x - centre) / s) / s**2)


def test_the_weights_are_those_of_the_mixture_that_is_drawn_from():
    with precision("float64"):
        wide = Wide.of(density())
        rows = wide.draw(jax.random.key(0), 4000)
        centre = 0.4 * MEANS[0] + 0.6 * MEANS[1]
        assert wide.centre == pytest.approx(centre)
        assert np.asarray(rows.weight) == pytest.approx(by_hand(np.asarray(rows.x), centre))
        assert rows.weight.max() <= 4 / 3


def test_weighted_means_are_those_of_the_density():
    """4 standard errors: misses once in 16,000."""
    with precision("float64"):
        rows = Wide.of(density()).draw(jax.random.key(1), 40_000)
    for values, truth in (
        (np.ones(rows.n), 1.0),
        (np.asarray(rows.x[:, 0]), 0.1),
        (np.asarray(rows.x[:, 0] ** 2), 0.4 * 4.25 + 0.6 * 2.75),
    ):
        terms = np.asarray(rows.weight) * values
        assert abs(terms.mean() - truth) < 4 * terms.std() / 200


def test_draws_and_outer_points():
    """Three of four are the density's own draws, the fourth lies s times as far out."""
    z = np.asarray(StandardNormal(3).sample(jax.random.key(2), 8))
    x = np.asarray(Wide.of(StandardNormal(3)).draw(jax.random.key(2), 8).x)
    assert x[1:4] == pytest.approx(z[1:4])
    assert x[4] == pytest.approx(stretch(3) * z[4], rel=1e-6)


def test_batches_are_points_never_met_before_and_can_be_passed_over():
    given = StandardNormal(2), 8, jax.random.key(3)
    first, second = WideBatches(*given), WideBatches(*given)
    whole = first.take(3)
    assert whole.x.shape == (3, 8, 2)
    assert len(np.unique(whole.x)) == whole.x.size
    second.skip(2)
    again = second.take(1)
    np.testing.assert_array_equal(again.x, whole.x[2:])
    np.testing.assert_array_equal(again.weight, whole.weight[2:])


def test_a_density_without_known_moments_has_a_centre_all_the_same():
    class Unknown(StandardNormal):
        def moments(self):
            return None

    centre = Wide.of(Unknown(2)).centre
    assert jnp.abs(centre).max() < 0.1  # six standard errors of 4,096 draws


@pytest.mark.parametrize(
    "exact",
    [gaussian(np.ones(2), 2 * np.eye(2), 3.0), product_mixture(2, 3.0)],
    ids=["normal", "product"],
)
def test_points_of_a_reference_at_given_scores(exact):
    scores = np.random.default_rng(0).standard_normal((40_000, 2))
    x, weight = wide_points(exact, scores)
    inside = exact.from_scores(scores)
    assert (x[10_000:] == inside[10_000:]).all()
    assert (x[:10_000] != inside[:10_000]).any()
    terms = weight * exact.log_prob(x)
    assert abs(terms.mean() + exact.entropy) < 4 * terms.std() / 200
    assert weight.max() <= 4 / 3


def test_an_outer_point_beyond_the_support_does_not_count():
    exact = density_1d(lambda x: np.zeros_like(x), 2.0, (0.0, 1.0))
    x, weight = wide_points(exact, np.random.default_rng(0).standard_normal((400, 1)))
    assert (weight == 0).any()
    assert ((x >= 0) & (x <= 1)).all()
    assert np.isfinite(exact.map(x)).all()
