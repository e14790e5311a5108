"""Streams: every training row once an epoch, exact moments, any place of the order at once."""

import numpy as np
import polars
import pytest

from otflow import OTFlow
from otflow.data.preprocessing import Standardizer
from otflow.data.shards import ShardedTable
from otflow.data.streaming import Lanes, StreamBatches, Survey


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal([0, 5, 9], size=(1000, 3))


@pytest.fixture
def folder(rows, tmp_path):
    """Three shards of unequal length, Parquet and NPY."""
    polars.DataFrame(rows[:300], schema=["a", "b", "c"]).write_parquet(tmp_path / "1.parquet")
    polars.DataFrame(rows[300:], schema=["a", "b", "c"]).write_parquet(tmp_path / "2.parquet")
    np.save(tmp_path / "all.npy", rows)
    return tmp_path


def table(path, **options):
    """Small pieces."""
    return ShardedTable(path, **{"piece_rows": 64, "buffer_rows": 256, "lanes": 2} | options)


def stream(path, batch=20, **options):
    """Batches in the data's own units."""
    lanes = Lanes(table(path, **options), 0.1, 3)
    return lanes, StreamBatches(lanes, Standardizer.identity(3), batch, np.float64)


def test_parquet_and_npy_read_the_same_rows(folder, rows):
    for found in (table(folder / "*.parquet"), table(folder / "all.npy")):
        whole = np.concatenate([found.read(i) for i in range(len(found.pieces))])
        np.testing.assert_array_equal(whole, rows)
        assert (found.n, found.dim) == (1000, 3)
    assert table(folder / "*.parquet", columns=("c", "a")).read(0).shape == (64, 2)


def test_an_epoch_of_a_lane_holds_each_training_row_once(folder, rows):
    lanes, batches = stream(folder / "all.npy", batch=2)
    length = int(lanes.lengths[0])
    epochs = batches._rows(0, 0, 2 * length)
    first, second = (sorted(part[:, 0]) for part in np.split(epochs, 2))
    kept = np.concatenate([rows[64 * i : 64 * (i + 1)][~lanes.mask(i)] for i in lanes.pieces[0]])
    assert first == second == sorted(kept[:, 0])
    assert not np.array_equal(epochs[:length], epochs[length:])


def test_moments_and_held_out_rows_are_exact(folder, rows):
    lanes = Lanes(table(folder / "*.parquet"), 0.1, 3)
    held = np.concatenate([lanes.mask(i) for i in range(len(lanes.table.pieces))])
    survey = Survey.of(lanes)
    np.testing.assert_allclose(survey.mean, rows[~held].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(survey.cov, np.cov(rows[~held].T, bias=True), atol=1e-12)
    np.testing.assert_array_equal(survey.held_out, rows[held])
    assert 60 < held.sum() < 140  # of 1000 with probability 0.1: beyond 4 sigma either way
    points = survey.points(Standardizer.identity(3))
    np.testing.assert_allclose(points.mean(axis=0), survey.mean, rtol=1e-12)
    np.testing.assert_allclose(np.cov(points.T, bias=True), survey.cov, atol=1e-12)


def test_skipping_is_taking(folder):
    taken, skipped = (stream(folder / "all.npy")[1] for _ in range(2))
    expected = taken.take(70).x[63:]
    skipped.skip(63)
    np.testing.assert_array_equal(skipped.take(7).x, expected)


def test_weights_make_up_for_unequal_lanes(folder):
    lanes, batches = stream(folder / "all.npy", lanes=3)
    weight = batches.take(1).weight[0].reshape(3, -1)
    np.testing.assert_allclose(weight.mean(axis=1), lanes.lengths / lanes.lengths.mean())
    assert weight.mean() == pytest.approx(1)


def test_a_stream_trains(folder, rows):
    options = {"width": 4, "n_steps": 1, "max_iter": 5, "random_state": 0, "verbose": False}
    one, two = (OTFlow(**options).fit(table(folder / "*.parquet")) for _ in range(2))
    assert one.history_["objective"] == two.history_["objective"]
    assert list(one.feature_names_in_) == ["a", "b", "c"]
    np.testing.assert_allclose(one.standardizer_.mean, rows.mean(axis=0), atol=0.1)


@pytest.mark.parametrize(
    ("paths", "options", "error", "message"),
    [
        ("none/*.parquet", {}, FileNotFoundError, "has none"),
        ("1.parquet", {"columns": ["z"]}, ValueError, "expected different ones of a, b, c"),
        ("all.npy", {"columns": ["a"]}, ValueError, "expected Parquet"),
        ("all.npy", {"lanes": 0}, ValueError, "lanes: expected an integer"),
    ],
)
def test_bad_tables_are_refused(folder, paths, options, error, message):
    with pytest.raises(error, match=message):
        table(folder / paths, **options)


def test_bad_numbers_and_settings_are_named(folder):
    np.save(folder / "nan.npy", np.array([[1.0, 2], [3, np.nan]]))
    with pytest.raises(ValueError, match=r"nan.npy: expected finite.*x1"):
        table(folder / "nan.npy").read(0)
    for name, value in (("bounds", {0: (0, None)}), ("natural_iter", 3)):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            OTFlow(**{name: value}).fit(table(folder / "all.npy"))
