"""Tables in and out, and every way a file can be no table."""

import random
import zipfile

import numpy as np
import polars
import pytest

from otflow.data.shards import ShardedTable
from otflow.data.tables import Table, check_output, read_csv, read_table, write_table
from otflow.data.writing import csv_pieces
from otflow.support import extras

SUFFIXES = [".csv", ".parquet", ".npy", ".npz"]
NAMED = [".csv", ".parquet"]
VALUES = np.random.default_rng(0).standard_normal((6, 3)) * [1e-9, 1.0, 1e9]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_is_exact(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    write_table(path, Table(VALUES, ("a", "b", "long name, with comma")))
    found = read_table(str(path))
    assert np.array_equal(found.values, VALUES)
    assert found.values.dtype == np.float64
    expected = ("a", "b", "long name, with comma") if suffix in NAMED else None
    assert found.columns == expected
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_not_finite_numbers_survive(tmp_path, suffix):
    values = np.array([[np.nan, np.inf], [-np.inf, 1.0]])
    write_table(tmp_path / f"t{suffix}", Table(values))
    assert np.array_equal(read_table(tmp_path / f"t{suffix}").values, values, equal_nan=True)


@pytest.mark.parametrize("suffix", NAMED)
def test_columns_without_names_get_some(tmp_path, suffix):
    write_table(tmp_path / f"t{suffix}", Table(VALUES))
    assert read_table(tmp_path / f"t{suffix}").columns == ("x0", "x1", "x2")


def test_frame_carries_the_names():
    frame = Table(VALUES, ("a", "b", "c")).frame()
    assert isinstance(frame, polars.DataFrame)
    assert frame.columns == ["a", "b", "c"]
    assert Table(VALUES).frame() is VALUES


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.float16, np.float32, bool])
def test_other_number_types_become_float64(tmp_path, dtype):
    values = np.array([[1, 0], [0, 1], [1, 1]]).astype(dtype)
    np.save(tmp_path / "t.npy", values)
    found = read_table(tmp_path / "t.npy").values
    assert found.dtype == np.float64
    assert np.array_equal(found, values)


def test_missing_values_become_nan(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,\n,2\n3,4\n")
    expected = [[1, np.nan], [np.nan, 2], [3, 4]]
    assert np.array_equal(read_table(tmp_path / "t.csv").values, expected, equal_nan=True)
    polars.DataFrame({"a": [1, None], "b": [True, False]}).write_parquet(tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet").values
    assert np.array_equal(found, [[1, 1], [np.nan, 0]], equal_nan=True)


def test_an_archive_needs_one_array_or_X(tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, whatever=VALUES)
    assert np.array_equal(read_table(path).values, VALUES)
    np.savez(path, X=VALUES, y=VALUES[:, 0])
    assert np.array_equal(read_table(path).values, VALUES)
    np.savez(path, a=VALUES, b=VALUES)
    with pytest.raises(
        ValueError, match=r"t\.npz.*expected one array or one named X; got \['a', 'b'\]"
    ):
        read_table(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_file(tmp_path, suffix):
    with pytest.raises(FileNotFoundError, match=rf"no such file: .*missing\{suffix}"):
        read_table(tmp_path / f"missing{suffix}")


@pytest.mark.parametrize("name", ["t.txt", "t", "t.xlsx"])
def test_unknown_suffix(tmp_path, name):
    (tmp_path / name).write_text("a\n1\n")
    message = r"expected a suffix of \.csv, \.parquet, \.npy, \.npz; got"
    for use in (read_table, check_output, lambda path: write_table(path, Table(VALUES))):
        with pytest.raises(ValueError, match=message):
            use(tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_file(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    path.touch()
    with pytest.raises(ValueError, match=rf"t\{suffix}: not a readable \{suffix} file"):
        read_table(path)


@pytest.mark.parametrize("suffix", NAMED)
def test_no_rows(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    write_table(path, Table(np.empty((0, 2)), ("a", "b")))
    with pytest.raises(ValueError, match=r"expected at least one row .*; got \(0, 2\)"):
        read_table(path)


def test_a_text_column_is_named(tmp_path):
    (tmp_path / "t.csv").write_text("height,sex,age\n1.7,f,30\n1.8,m,31\n")
    with pytest.raises(ValueError, match=r"t\.csv: expected numeric columns; got sex \(String\)"):
        read_table(tmp_path / "t.csv")
    polars.DataFrame({"ok": [1, 2], "nested": [[1], [2]]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="expected numeric columns; got nested"):
        read_table(tmp_path / "t.parquet")


def test_rows_of_unequal_length(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n1,2,3\n")
    with pytest.raises(ValueError, match=r"t\.csv: not a readable \.csv file"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (VALUES[0], r"expected an array of shape \(n, d\); got \(3,\)"),
        (VALUES[None], r"expected an array of shape \(n, d\); got \(1, 6, 3\)"),
        (VALUES + 1j, "expected numbers; got dtype complex128"),
        (np.array([["a", "b"]]), "expected numbers; got dtype <U1"),
    ],
    ids=["1-d", "3-d", "complex", "text"],
)
def test_arrays_that_are_no_table(tmp_path, values, message):
    np.save(tmp_path / "t.npy", values)
    np.savez(tmp_path / "t.npz", X=values)
    for name in ("t.npy", "t.npz"):
        with pytest.raises(ValueError, match=message) as caught:
            read_table(tmp_path / name)
        assert name in str(caught.value)


class Bomb:
    """Unpickling it sets a flag."""

    went_off = False

    def __reduce__(self):
        return (setattr, (Bomb, "went_off", True))


def test_object_arrays_are_never_unpickled(tmp_path):
    values = np.array([[Bomb(), 1]], dtype=object)
    np.save(tmp_path / "t.npy", values, allow_pickle=True)
    np.savez(tmp_path / "t.npz", X=values)
    for name in ("t.npy", "t.npz"):
        with pytest.raises(ValueError, match=rf"{name}: not a readable .*Object arrays"):
            read_table(tmp_path / name)
    assert not Bomb.went_off
    np.load(tmp_path / "t.npy", allow_pickle=True)  # the bomb is live
    assert Bomb.went_off


def test_formats_under_another_suffix(tmp_path):
    write_table(tmp_path / "a.npy", Table(VALUES))
    write_table(tmp_path / "b.npz", Table(VALUES))
    (tmp_path / "a.npy").rename(tmp_path / "c.npz")
    (tmp_path / "b.npz").rename(tmp_path / "d.npy")
    for name in ("c.npz", "d.npy"):
        with pytest.raises(ValueError, match=rf"{name}: not a readable"):
            read_table(tmp_path / name)


def test_an_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("X", "hello")
    with pytest.raises(ValueError, match=r"t\.npz: not a readable \.npz file"):
        read_table(tmp_path / "t.npz")


@pytest.mark.parametrize("rows", [10**12, 10**20])
def test_a_header_that_promises_too_much(tmp_path, rows):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({rows}, 2), }}".ljust(117)
    content = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.encode() + b"\n1234"
    (tmp_path / "t.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"t\.npy: not a readable"):
        read_table(tmp_path / "t.npy")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files_give_one_kind_of_error(tmp_path, suffix):
    """150 files with random bytes changed or cut off: a table or a ValueError with the path."""
    rng = random.Random(0)
    path = tmp_path / f"t{suffix}"
    write_table(path, Table(VALUES, ("a", "b", "c")))
    whole, refused = path.read_bytes(), 0
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content[: rng.randrange(len(content))] if rng.random() < 0.2 else content)
        try:
            read_table(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
    assert refused > 10


def test_a_missing_optional_dependency_names_the_extra(tmp_path, monkeypatch):
    def missing(module):
        raise ImportError(f"No module named {module!r}")

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(ImportError, match=r"polars is needed .* pip install 'otflow\[tables\]'"):
        read_table(tmp_path / "t.csv")


def test_columns_are_selected_by_name():
    table = Table(np.arange(6.0).reshape(2, 3), ("a", "b", "c"))
    chosen = table.select(["c", "a"])
    assert chosen.columns == ("c", "a")
    assert np.array_equal(chosen.values, [[2.0, 0.0], [5.0, 3.0]])


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        (("a", "b"), ["a", "d", "e"], "expected different ones of a, b; got no d, e"),
        (("a", "b"), ["a", "a"], "got a, a"),
        (("a", "b"), [], "got no name"),
        (None, ["a"], "expected a table with names"),
    ],
)
def test_columns_that_cannot_be_selected(columns, names, message):
    with pytest.raises(ValueError, match=message):
        Table(np.zeros((1, 2)), columns).select(names)


def test_csv_without_a_file():
    table = Table(np.array([[0.1, 2.0], [3.0, 1 / 3]]), ("a", "b"))
    found = read_csv("".join(csv_pieces(table.columns, [table.values])).encode(), "standard input")
    assert found.columns == ("a", "b")
    assert np.array_equal(found.values, table.values)
    with pytest.raises(ValueError, match=r"standard input\.csv: not a readable"):
        read_csv(b"", "standard input")


def test_errors_of_other_libraries_are_cut(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('a,b\n"' + "1,2\n" * 5000)
    with pytest.raises(ValueError, match="not a readable") as caught:
        read_table(path)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


# --- tables as people have them --------------------------------------------------------------


def read(text, **options):
    return read_csv(text.encode(), "t", **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",a,b\n0,1,2\n1,3,4\n", r"a name for every column; got '' for column 1.*index=False"),
        ("Unnamed: 0,a\n0,1\n", "got 'Unnamed: 0' for column 1"),
        ("a,b,\n1,2,\n", "got '' for column 3"),
        ("a,a\n1,2\n", "different names of columns; got a twice"),
        ("a;b\n1,5;2,5\n", r"got semicolons in the header line.*sep=';', decimal=','"),
        ("a\tb\n1\t2\n", "got tabs in the header line"),
        ('a,b\n"1,5",2\n', r"got a \(String\): for example '1,5' in a; write decimals with points"),
        ("d,b\n2020-01-31,1\n", "'2020-01-31' in d; turn dates and times into numbers"),
        ("d,b\n31.01.2020,1\n", "turn dates and times into numbers"),
        ("a,b\n1,2\n3,NA\n", "'NA' in b; encode text as numbers, leave missing values empty"),
    ],
)
def test_refused_with_the_remedy(text, message):
    with pytest.raises(ValueError, match=rf"^t\.csv: expected .*{message}"):
        read(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a,b\n1,2\n3,4\n\n\n", [[1, 2], [3, 4]]),
        ("a,b\r\n1,2\r\n3,4\r\n\r\n", [[1, 2], [3, 4]]),
        ("a,b\n1,2\n3,4\n  \n", [[1, 2], [3, 4]]),
        ("a,b\n1,2\n3,4", [[1, 2], [3, 4]]),
        ("a, b\n1, 2\n 3,4.5 \n", [[1, 2], [3, 4.5]]),
        ("a, b\n1, \n2, 3\n", [[1, np.nan], [2, 3]]),
        ("a,b\n1,2\n\n3,4\n", [[1, 2], [np.nan, np.nan], [3, 4]]),
        ("a,b\n1,2\n,\n", [[1, 2], [np.nan, np.nan]]),
    ],
)
def test_spaces_and_blank_lines(text, values):
    """Blank last lines are no rows; those in between, and empty fields, are missing values."""
    found = read(text)
    assert found.columns == ("a", "b")
    np.testing.assert_array_equal(found.values, values)


def test_chosen_columns_leave_the_others_unread(tmp_path):
    text = ",b,sex,a\n0,1,f,2\n1,3,m,4\n"
    np.testing.assert_array_equal(read(text, columns=["a", "b"]).values, [[2, 1], [4, 3]])
    with pytest.raises(ValueError, match=r"^columns: expected different ones of , b, sex, a; g"):
        read(text, columns=["c"])
    frame = polars.DataFrame({"a": [1.0, 2.0], "__index_level_0__": [3, 4], "d": ["x", "y"]})
    frame.write_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet: .*got '__index_level_0__' for column 2"):
        read_table(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", ["a"]).values.tolist() == [[1.0], [2.0]]
    with pytest.raises(ValueError, match=r"t\.parquet: .*got '__index_level_0__'"):
        ShardedTable(tmp_path / "t.parquet")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_suffixes_in_capitals(tmp_path, suffix):
    path = tmp_path / f"t{suffix.upper()}"
    write_table(path, Table(VALUES, ("a", "b", "c")))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    np.testing.assert_array_equal(read_table(path).values, VALUES)
    if suffix in (".npy", ".parquet"):
        np.testing.assert_array_equal(ShardedTable(tmp_path).read(0), VALUES)


def test_dates_and_categories_in_parquet(tmp_path):
    days = polars.Series([0, 1]).cast(polars.Date)
    frame = polars.DataFrame(
        {"day": days, "sex": polars.Series(["f", "m"], dtype=polars.Categorical)}
    )
    frame.write_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"got day \(Date\), sex \(Categorical.*: turn dates and"):
        read_table(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"got sex \(Categorical.*: encode them as numbers"):
        read_table(tmp_path / "t.parquet", ["sex"])


def test_a_name_that_holds_lines_is_told_in_one(tmp_path):
    """A quote is missing: the header goes on over the next lines."""
    (tmp_path / "t.csv").write_text('"a","b\n"1","x"\n' + '"2","y"\n' * 40)
    with pytest.raises(ValueError, match=r"t\.csv: expected") as told:
        read_table(tmp_path / "t.csv")
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 1000
