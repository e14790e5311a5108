"""The standardizer: an affine map, its inverse, and its log-determinant."""

import numpy as np
import pytest

from otflow.preprocessing import Standardizer

X = np.random.default_rng(0).normal([1.0, -20.0, 300.0], [0.1, 2.0, 50.0], size=(200, 3))


def test_columns_get_mean_zero_and_deviation_one():
    z = Standardizer.fit(X).forward(X)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-13)
    np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-13)


def test_new_rows_use_the_fitted_columns():
    scaler = Standardizer.fit(X)
    new = X[:5] + 1.0
    np.testing.assert_allclose(scaler.forward(new), (new - X.mean(axis=0)) / X.std(axis=0))


def test_inverse_undoes_forward():
    scaler = Standardizer.fit(X)
    np.testing.assert_allclose(scaler.inverse(scaler.forward(X)), X, rtol=1e-13)


def test_log_det_is_that_of_the_jacobian():
    """Exact for an affine map, columns of the Jacobian by differences of one unit."""
    scaler = Standardizer.fit(X)
    jacobian = scaler.forward(np.eye(3)) - scaler.forward(np.zeros((3, 3)))
    np.testing.assert_allclose(scaler.log_det, np.linalg.slogdet(jacobian)[1], rtol=1e-12)
    assert isinstance(scaler.log_det, float)


def test_identity():
    scaler = Standardizer.identity(3)
    np.testing.assert_array_equal(scaler.forward(X), X)
    np.testing.assert_array_equal(scaler.inverse(X), X)
    assert scaler.log_det == 0


@pytest.mark.parametrize("method", ["forward", "inverse"])
def test_results_are_float64(method):
    assert getattr(Standardizer.fit(X), method)(X.astype(np.float32)).dtype == np.float64


def test_integer_weights_are_repeated_rows():
    counts = np.random.default_rng(1).integers(0, 4, size=len(X))
    found = Standardizer.fit(X, 0.3 * counts)
    expected = Standardizer.fit(np.repeat(X, counts, axis=0))
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-13)
    np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-12)
