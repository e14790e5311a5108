"""map_rows: the same as one call, with one shape and bounded memory."""

import tracemalloc

import numpy as np
import pytest

from otflow.parallel.batching import map_rows


class Recorder:
    """A row-wise function that remembers the shapes it saw, as a compiler would."""

    def __init__(self, function):
        self.function, self.shapes = function, []

    def __call__(self, rows):
        self.shapes.append(rows.shape)
        assert np.isfinite(rows).all()
        return self.function(rows)


OUTPUTS = {
    "scalars": lambda x: x.sum(axis=1),
    "rows": lambda x: 2 * x,
    "matrices": lambda x: x[:, :, None] * x[:, None, :],
}


@pytest.mark.parametrize("function", OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 16, 23])
def test_equals_one_call(n, function):
    x = np.random.default_rng(0).standard_normal((n, 3))
    got = map_rows(function, x, batch_size=8)
    assert isinstance(got, np.ndarray)
    np.testing.assert_array_equal(got, function(x))


@pytest.mark.parametrize(
    ("n", "batch_size", "shape", "calls"),
    [(23, 8, 8, 3), (16, 8, 8, 2), (5, 8, 8, 1), (3, 100, 4, 1), (1, 8, 1, 1), (7, 6, 6, 2)],
    ids=["padded", "exact", "short", "next power of two", "one row", "any batch size"],
)
def test_one_shape_of_at_most_the_batch(n, batch_size, shape, calls):
    recorder = Recorder(lambda x: x[:, 0])
    map_rows(recorder, np.ones((n, 2)), batch_size)
    assert recorder.shapes == [(shape, 2)] * calls


def test_different_short_inputs_share_a_shape():
    recorder = Recorder(lambda x: x[:, 0])
    for n in (5, 6, 7, 8):
        map_rows(recorder, np.ones((n, 2)))
    assert set(recorder.shapes) == {(8, 2)}


def test_input_is_not_changed():
    x = np.arange(10.0).reshape(5, 2)
    x.setflags(write=False)
    map_rows(lambda rows: rows + 1, x, batch_size=4)


def test_tuples_give_tuples():
    x = np.arange(10.0).reshape(5, 2)
    total, positive = map_rows(lambda rows: (rows.sum(axis=1), rows > 0), x, batch_size=4)
    assert np.array_equal(total, x.sum(axis=1))
    assert positive.dtype == bool
    assert np.array_equal(positive, x > 0)


@pytest.mark.parametrize("outputs", [1, 2], ids=["array", "tuple"])
def test_holds_the_results_and_a_few_batches(outputs):
    """An 8 MB result of an 8 MB input: no second copy of either."""
    x = np.zeros((500_000, 2))

    def double(rows):
        return 2 * rows if outputs == 1 else (2 * rows, rows[:, 0] > 0)

    tracemalloc.start()
    map_rows(double, x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * x.nbytes
