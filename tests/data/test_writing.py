"""Tables in pieces are the tables in one piece, in every format."""

import weakref

import numpy as np
import polars
import pytest

from otflow.data.tables import Table, read_table, write_table
from otflow.data.writing import csv_pieces, write_pieces

SUFFIXES = [".csv", ".parquet", ".npy", ".npz"]
VALUES = np.random.default_rng(0).standard_normal((23, 3)) * [1e-9, 1.0, 1e9]
NAMES = ("a", "b c", "ä")
CUTS = {"one": [], "equal": [10, 20], "uneven": [1, 2, 22]}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("cuts", CUTS)
def test_pieces_are_the_whole(tmp_path, suffix, cuts):
    path, whole = tmp_path / f"t{suffix}", tmp_path / f"whole{suffix}"
    write_pieces(path, NAMES, 23, iter(np.split(VALUES, CUTS[cuts])))
    found = read_table(path)
    assert np.array_equal(found.values, VALUES)
    assert found.columns == (NAMES if suffix in (".csv", ".parquet") else None)
    write_table(whole, Table(VALUES, NAMES))
    if suffix in (".csv", ".npy"):
        assert path.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, whole.name])


def test_files_are_those_that_others_write(tmp_path):
    np.save(tmp_path / "numpy.npy", VALUES)
    write_pieces(tmp_path / "t.npy", NAMES, 23, [VALUES])
    assert (tmp_path / "t.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    write_pieces(tmp_path / "t.npz", NAMES, 23, [VALUES])
    with np.load(tmp_path / "t.npz") as archive:
        assert archive.files == ["X"]
        assert np.array_equal(archive["X"], VALUES)
    text = "".join(csv_pieces(NAMES, np.split(VALUES, [7])))
    assert text == polars.DataFrame(VALUES, schema=list(NAMES)).write_csv()


@pytest.mark.parametrize("turned", [VALUES.T.copy().T, VALUES[::-1], VALUES.astype("f4")])
def test_other_layouts_in_memory(tmp_path, turned):
    write_pieces(tmp_path / "t.npy", NAMES, 23, [turned])
    assert np.array_equal(np.load(tmp_path / "t.npy"), turned)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_half_way_leaves_the_old_file_and_nothing_else(tmp_path, suffix, error):
    def failing():
        yield VALUES[:5]
        yield VALUES[5:9]
        raise error

    path = tmp_path / f"t{suffix}"
    write_table(path, Table(VALUES, NAMES))
    with pytest.raises(type(error)):
        write_pieces(path, NAMES, 23, failing())
    assert np.array_equal(read_table(path).values, VALUES)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_no_more_than_a_piece_is_held(tmp_path):
    """Every piece is written before the next but one is asked for."""
    alive = []

    def pieces():
        for _ in range(20):
            piece = np.zeros((1000, 3))
            alive.append(weakref.ref(piece))
            yield piece
            del piece
            assert sum(ref() is not None for ref in alive) <= 3

    for suffix in SUFFIXES:
        write_pieces(tmp_path / f"t{suffix}", NAMES, 20_000, pieces())
        assert read_table(tmp_path / f"t{suffix}").values.shape == (20_000, 3)
