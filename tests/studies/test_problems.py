"""Problems of a study: density, exact reference and moments are those of one distribution."""

import json

import jax
import numpy as np
import pytest

from otflow.studies.problems import DataProblem, make_problem
from otflow.support.precision import precision

KINDS = [("gaussian", 1), ("gaussian", 3), ("mixture", 1), ("product", 2), ("product", 4)]


@pytest.mark.parametrize(("name", "dim"), KINDS)
class TestExactProblems:
    def test_moments_of_samples(self, name, dim):
        """20,000 points of both samplers, some fifty moments within 5 standard errors: 3e-5."""
        problem, n = make_problem(name, dim), 20_000
        mean, cov = problem.moments()
        assert (mean.shape, cov.shape) == ((dim,), (dim, dim))
        with precision("float64"):
            ours = np.asarray(problem.density.sample(jax.random.key(0), n))
        for x in (ours, problem.reference(3.0).sample(1, n)):
            centred = x - mean
            products = np.einsum("ni,nj->nij", centred, centred)
            for found, expected in ((x, mean), (products, cov)):
                error = found.std(axis=0, ddof=1) / np.sqrt(n)
                assert (np.abs(found.mean(axis=0) - expected) < 5 * error + 1e-12).all()

    def test_density_is_the_reference(self, name, dim):
        problem = make_problem(name, dim)
        x = problem.reference(3.0).sample(2, 200)
        with precision("float64"):
            found = problem.density.log_prob(x)
        np.testing.assert_allclose(found, problem.reference(3.0).log_prob(x), rtol=1e-9)

    def test_settings(self, name, dim):
        assert make_problem(name, dim).settings() == {"problem": name, "dim": dim}
        assert make_problem(name, dim).dim == dim


def test_a_reference_is_kept():
    problem = make_problem("gaussian", 2)
    assert problem.reference(3) is problem.reference(3.0)
    assert problem.reference(3.0).objective < problem.reference(4.0).objective


@pytest.mark.parametrize(
    ("name", "dim", "error", "message"),
    [
        ("nope", 2, ValueError, r"^name: expected one of \('gaussian', 'mixture', 'product'\)"),
        ("mixture", 2, ValueError, r"^dim: expected 1 for the problem 'mixture'; got 2"),
        ("product", 0, ValueError, r"^dim: expected an integer >= 1; got 0"),
        ("gaussian", 2.0, TypeError, r"^dim: expected an integer >= 1; got float"),
    ],
)
def test_refused(name, dim, error, message):
    with pytest.raises(error, match=message):
        make_problem(name, dim)


class TestData:
    X = np.random.default_rng(0).standard_normal((50, 3))

    def test_rows_are_split(self):
        problem = DataProblem(self.X, holdout=0.2, seed=1)
        assert (len(problem.population), len(problem.rows)) == (10, 40)
        together = np.concatenate([problem.population, problem.rows])
        assert {tuple(r) for r in together} == {tuple(r) for r in self.X}
        again, other = DataProblem(self.X, 0.2, 1), DataProblem(self.X, 0.2, 2)
        np.testing.assert_array_equal(again.rows, problem.rows)
        assert not np.array_equal(other.rows, problem.rows)

    @pytest.mark.parametrize("holdout", [1e-6, 0.5, 1 - 1e-6])
    def test_both_parts_have_a_spread(self, holdout):
        problem = DataProblem(self.X[:8], holdout)
        assert min(len(problem.population), len(problem.rows)) >= 2

    def test_moments_are_those_of_the_training_rows(self):
        problem = DataProblem(self.X)
        mean, cov = problem.moments()
        np.testing.assert_allclose(mean, problem.rows.mean(axis=0))
        centred = problem.rows - mean
        np.testing.assert_allclose(cov, centred.T @ centred / len(centred))
        assert DataProblem(self.X[:, :1]).moments()[1].shape == (1, 1)

    def test_nothing_is_known(self):
        problem = DataProblem(self.X)
        assert (problem.density, problem.reference(3.0), problem.name) == (None, None, "data")

    def test_settings_tell_rows_apart(self):
        base = DataProblem(self.X).settings()
        json.dumps(base, allow_nan=False)
        assert base == DataProblem(self.X.copy()).settings()
        moved, swapped = self.X.copy(), self.X[::-1]
        moved[7, 1] += 1e-6
        assert len({json.dumps(DataProblem(x).settings()) for x in (self.X, moved, swapped)}) == 3

    @pytest.mark.parametrize(
        ("X", "changes", "message"),
        [
            (X[0], {}, r"^X: expected shape \(n, d\) with n >= 8; got \(3,\)"),
            (X[:7], {}, r"^X: expected shape \(n, d\) with n >= 8; got \(7, 3\)"),
            (np.where(X > 2, np.nan, X), {}, r"^X: expected finite numbers"),
            (X, {"holdout": 0.0}, r"^holdout: expected a number in \(0, 1\); got 0"),
            (X, {"holdout": 1.0}, r"^holdout: expected a number in \(0, 1\); got 1"),
        ],
    )
    def test_refused(self, X, changes, message):
        with pytest.raises(ValueError, match=message):
            DataProblem(X, **changes)
