"""Every row is used equally often, in an order that the seed alone decides."""

import numpy as np
import pytest

from otflow.data.batches import BatchStream


@pytest.mark.parametrize(("n_rows", "batch_size"), [(10, 4), (7, 3), (64, 16), (5, 1)])
def test_every_row_equally_often(n_rows, batch_size):
    """n_rows batches hold exactly batch_size shuffles; at no point do two counts differ by > 1."""
    stream = BatchStream(n_rows, batch_size, seed=3)
    rows = np.concatenate([stream.take(1).ravel() for _ in range(n_rows)])
    assert np.array_equal(np.bincount(rows, minlength=n_rows), np.full(n_rows, batch_size))
    for used in range(1, rows.size + 1):
        counts = np.bincount(rows[:used], minlength=n_rows)
        assert counts.max() - counts.min() <= 1


def test_shape_and_type():
    rows = BatchStream(10, 4, 0).take(3)
    assert rows.shape == (3, 4)
    assert rows.dtype == np.int32


def test_the_seed_decides():
    first = BatchStream(100, 10, 1).take(25)
    assert np.array_equal(first, BatchStream(100, 10, 1).take(25))
    assert not np.array_equal(first, BatchStream(100, 10, 2).take(25))


def test_the_order_does_not_depend_on_how_it_is_taken():
    at_once = BatchStream(10, 4, 5).take(7)
    stream = BatchStream(10, 4, 5)
    in_parts = np.concatenate([stream.take(n) for n in (1, 4, 2)])
    assert np.array_equal(at_once, in_parts)


def test_shuffles_differ_from_one_another():
    rows = BatchStream(50, 25, 0).take(4).reshape(2, 50)
    assert not np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], np.arange(50))


@pytest.mark.parametrize("batch_size", [6, 7, 1000])
def test_a_batch_of_everything_holds_all_rows_in_order(batch_size):
    stream = BatchStream(6, batch_size, 0)
    assert stream.batch_size == 6
    assert np.array_equal(stream.take(2), [np.arange(6)] * 2)


@pytest.mark.parametrize("batch_size", [3, 7, 10, 50])
def test_skipping_is_taking(batch_size):
    taken, skipped = (BatchStream(10, batch_size, seed=4) for _ in range(2))
    taken.take(60)
    skipped.skip(60)
    assert np.array_equal(taken.take(3), skipped.take(3))
