"""Draws in pieces: the same rows, any number of them, and numbers that no memory holds."""

import itertools

import jax
import numpy as np
import pytest

import otflow.model.model
from otflow.model.model import Model
from tests.models import CONDITIONS

HUGE = 10**12
PIECE = 32  # and a last piece of more than 16 rows: one program


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(otflow.model.model, "PIECE", PIECE)


@pytest.mark.usefixtures("small")
class TestPieces:
    @pytest.mark.parametrize("n", [20, 32, 50, 92])
    def test_pieces_are_the_whole(self, trained, n):
        model = trained("conforming")
        pieces = list(model.sample_pieces(n, random_state=4))
        assert [len(piece) for piece in pieces[:-1]] == [PIECE] * (len(pieces) - 1)
        whole = model.sample(n, random_state=4)
        assert np.array_equal(np.concatenate(pieces), whole)
        assert whole.shape == (n, 2)
        assert whole.dtype == np.float64

    def test_the_first_rows_do_not_depend_on_how_many_follow(self, trained):
        model = trained("conforming")
        whole = model.sample(92, random_state=1)
        for n in (20, 32, 50, 64):
            assert np.array_equal(model.sample(n, random_state=1), whole[:n])

    def test_no_row_comes_twice(self, trained):
        rows = np.concatenate([trained("conforming").sample(192, random_state=s) for s in (1, 2)])
        assert len(np.unique(rows, axis=0)) == 384

    def test_conditions_follow_their_rows(self, trained):
        model = trained("conditional")
        c = CONDITIONS[:60]
        whole = model.sample(60, random_state=2, condition=c)
        same = model.sample(60, random_state=2, condition=c[40])
        np.testing.assert_allclose(whole[40], same[40], rtol=1e-4)
        assert np.abs(whole[:40] - same[:40]).max() > 0.1
        pieces = model.sample_pieces(60, random_state=2, condition=c)
        assert np.array_equal(np.concatenate(list(pieces)), whole)

    @pytest.mark.parametrize(
        ("name", "condition", "told"),
        [
            ("conditional", None, "condition: expected shape"),
            ("conditional", CONDITIONS[:50], r"got \(50, 2\)"),
            ("conforming", CONDITIONS[:60], "condition: expected none"),
        ],
    )
    def test_wrong_conditions_are_refused_before_any_draw(self, trained, name, condition, told):
        with pytest.raises(ValueError, match=told):
            next(trained(name).sample_pieces(60, condition=condition))

    def test_folds_are_counted_over_all_pieces(self, trained, monkeypatch):
        real = Model.inverse

        def folded(self, y, condition=None):
            x, valid = real(self, y, condition)
            valid = valid.copy()
            valid[:3] = False
            return x, valid

        monkeypatch.setattr(Model, "inverse", folded)
        for draw in (lambda m: m.sample(92), lambda m: list(m.sample_pieces(92))):
            with pytest.warns(UserWarning, match="9 of 92 rows have no inverse that is safe"):
                draw(trained("conforming"))


def test_small_samples_are_those_of_one_key(trained):
    """What every version drew: the target's own sample, carried back."""
    model = trained("conforming")
    seed = model._seed(5)
    y = model.flow_.target.sample(jax.random.key(seed), 20)
    expected = model.inverse_transform(np.asarray(y))
    assert np.array_equal(model.sample(20, random_state=5), expected)


WAYS = {
    "estimator": lambda m: m.sample(HUGE),
    "model": lambda m: m.model_.sample(HUGE, 0),
    "flow": lambda m: m.flow_.sample(jax.random.key(0), HUGE),
    "flow with densities": lambda m: m.flow_.sample_and_log_prob(jax.random.key(0), HUGE),
    "target": lambda m: m.flow_.target.sample(jax.random.key(0), HUGE),
    "toy": lambda m: otflow.datasets.toy("8gaussians", HUGE, 0),
}


@pytest.mark.parametrize("way", WAYS)
def test_more_than_memory_holds_is_an_exception_that_names_it(trained, way):
    with pytest.raises(MemoryError, match=str(HUGE)):
        WAYS[way](trained("conforming"))


@pytest.mark.usefixtures("small")
def test_pieces_of_more_than_memory_holds(trained):
    pieces = trained("conforming").sample_pieces(HUGE, random_state=0)
    first = list(itertools.islice(pieces, 2))
    whole = trained("conforming").sample(2 * PIECE, random_state=0)
    assert np.array_equal(np.concatenate(first), whole)


@pytest.mark.parametrize("n", [0, -1, 2.0, True, "3"])
def test_a_number_of_rows_is_a_count(trained, n):
    for method in ("sample", "sample_pieces"):
        with pytest.raises((TypeError, ValueError), match="n_samples: expected an integer >= 1"):
            getattr(trained("conforming"), method)(n)
