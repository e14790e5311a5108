"""What a map between populations does with rows and labels, and how it shows itself."""

import numpy as np
import pytest

from otflow import Between, transport_between
from tests.fakes import no_training
from tests.report.documents import CERTIFICATE

RNG = np.random.default_rng(0)
SHIFT = np.array([20.0, 5.0])
LEFT = np.array([-6.0, 0.0])


@pytest.fixture(scope="module")
def found():
    """Not trained: the map between the Gaussians of both, here a translation to 3 %."""
    with pytest.MonkeyPatch.context() as patch:
        no_training(patch)
        x = np.concatenate([RNG.standard_normal((400, 2)) + side for side in (LEFT, -LEFT)])
        options = {"max_components": 1, "n_steps": 1, "width": 4, "plan_iter": 0, "alpha": 1e6}
        return transport_between(x, x + SHIFT, **options)


def two_clusters(n):
    sides = RNG.integers(2, size=n)
    return RNG.standard_normal((n, 2)) + np.where(sides[:, None], -LEFT, LEFT), sides


def test_rows_on_the_way(found):
    """Straight lines at constant speed; the ends are the rows and their images."""
    x, _ = two_clusters(20)
    ends = found.transform(x)
    np.testing.assert_array_equal(found.interpolate(x, 0), x)
    np.testing.assert_array_equal(found.interpolate(x, 1), ends)
    np.testing.assert_allclose(found.interpolate(x, 0.25), x + 0.25 * (ends - x), rtol=1e-12)
    for t in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"^t: expected"):
            found.interpolate(x, t)


def test_labels_go_where_their_rows_go(found):
    """Two clusters 12 deviations apart: every row of Y gets the label of its cluster."""
    (x, sides), (y, expected) = two_clusters(200), two_clusters(100)
    names = np.array(["left", "right"])
    carried = found.carry_labels(x, names[sides], y + SHIFT)
    np.testing.assert_array_equal(carried.labels, names[expected])
    np.testing.assert_array_equal(carried.classes, names)
    np.testing.assert_allclose(carried.shares.sum(axis=1), 1)
    whole = found.carry_labels(x, sides, y + SHIFT, neighbours=10_000)
    np.testing.assert_allclose(whole.shares[0], [np.mean(sides == 0), np.mean(sides == 1)])
    assert whole.labels.dtype.kind == "i"


def test_shares_are_of_the_nearest_carried_rows(found):
    """By hand: distances in the data's units have the order of those in the common scale."""
    (x, _), (y, _) = two_clusters(60), two_clusters(5)
    labels = RNG.integers(3, size=60)
    carried = found.carry_labels(x, labels, y + SHIFT, neighbours=7)
    ends = found.transform(x)
    for row, shares in zip(y + SHIFT, carried.shares, strict=True):
        nearest = np.argsort(np.sum((ends - row) ** 2, axis=1))[:7]
        expected = [np.mean(labels[nearest] == k) for k in range(3)]
        np.testing.assert_allclose(shares, expected)


def test_fates_are_labels_of_where_rows_arrive(found):
    (x, sides), (y, of_y) = two_clusters(100), two_clusters(200)
    fates = found.fates(x, y + SHIFT, np.array(["a", "b"], dtype=object)[of_y])
    np.testing.assert_array_equal(fates.labels, np.array(["a", "b"])[sides])
    assert fates.shares.shape == (100, 2)


@pytest.mark.parametrize("labels", [np.zeros(4), np.array([0.5, 1.5, 2.5]), np.zeros((3, 1), int)])
def test_labels_that_are_none(found, labels):
    with pytest.raises(ValueError, match=r"^labels: expected texts or integers, \(3,\)"):
        found.carry_labels(np.zeros((3, 2)), labels, np.zeros((2, 2)))


def test_it_shows_its_certificate(found, monkeypatch):
    monkeypatch.setattr(Between, "certify", lambda *given, **options: CERTIFICATE)
    assert "certificate: none" in repr(found)
    shown = found.certified(np.zeros((2, 2)))
    bracket = f"[{CERTIFICATE.lower:.4g}, {CERTIFICATE.upper:.4g}]"
    assert f"1/2 W2^2 in {bracket}, 95%, in {CERTIFICATE.space}" in repr(shown)
    assert bracket in shown._repr_html_()
    assert CERTIFICATE._repr_html_() in shown._repr_html_()
    assert "Certificate" not in found._repr_html_()
    assert shown.model is found.model
