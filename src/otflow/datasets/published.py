"""The five tables of the density-estimation literature, as the MAF paper's code prepares them.

Source: Papamakarios, Pavlakou, Murray, Masked autoregressive flow for density estimation (2017).
Its prepared files are at https://zenodo.org/records/1161203. Each loader looks for them under the
names of that archive, in `folder` or the folder that the environment variable OTFLOW_DATA names.
No checksums of those files are published, so none is checked; power.npz has one.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float64

from otflow.datasets.tables import (
    Table,
    check_sum,
    cut_tail,
    find_file,
    numbered,
    read_arrays,
    read_matrix,
    standardised,
)
from otflow.support.extras import require

_ARCHIVE = (
    "The prepared files of the MAF paper are at https://zenodo.org/records/1161203 (data.tar.gz)"
)
_POWER_SHA256 = "7b4932e58096a8f136cc438d7d3e13ba7025bca38f7c871093d84ff02ee45d92"
_POWER_NAMES = (
    "active_power",
    "voltage",
    "sub_metering_1",
    "sub_metering_2",
    "sub_metering_3",
    "minute_of_day",
)
_MOST_CORRELATED = 0.98
_MOST_REPEATS = 5


def power(folder: str | Path | None = None) -> Table:
    """POWER: a household's electric power by the minute, 2,049,280 rows, 6 columns.

    From power.npz (an array X of 8 columns) or MAF's power/data.npy. Rows are shuffled by
    RandomState(42), reactive power and intensity dropped, uniform noise of the columns' resolution
    added, the rest as in the paper. A Gaussian of full covariance scores -7.73 nats on the test
    rows (-7.74 in the paper): the check of this loader.

    Raises:
        FileNotFoundError: neither file is there.
        ValueError: not a matrix of 8 columns.
    """
    path = find_file(folder, ("power.npz", "power/data.npy"), f"{_ARCHIVE}: power/data.npy.")
    if path.suffix == ".npz":
        check_sum(path, _POWER_SHA256)
        (x,) = read_arrays(path, "X")
    else:
        x = read_matrix(path)
    if x.ndim != 2 or x.shape[1] != 8:
        raise ValueError(f"{path}: expected shape (n, 8); got {x.shape}.")
    rng, n = np.random.RandomState(42), len(x)
    x = x[rng.permutation(n)][:, [0, 2, 4, 5, 6, 7]]
    x[:, 1] += 0.01 * rng.rand(n)
    x[:, 0] += 0.001 * rng.rand(n)
    x[:, 2:5] += rng.rand(n, 3)
    source = f"{path.name}: shuffled, dequantised, z-scored"
    return standardised(cut_tail(x), "power", _POWER_NAMES, source)


def gas(folder: str | Path | None = None) -> Table:
    """GAS: 16 chemical sensors in mixtures of ethylene and CO; 8 columns are left of them.

    MAF's file is a pickle of a data frame, and reading a pickle runs whatever code it holds, so it
    is not read here: where you trust it, write it as gas/ethylene_CO.csv once,

        pandas.read_pickle("ethylene_CO.pickle").to_csv("ethylene_CO.csv", index=False)

    or as gas/ethylene_CO.npy with the columns Time, Meth, Eth first. Those three are dropped; then,
    while two columns correlate by more than 0.98, the first of such; then z-scores. Not shuffled.

    Raises:
        FileNotFoundError: neither file is there.
        ValueError: a table without those columns.
    """
    hint = f"{_ARCHIVE}: gas/ethylene_CO.pickle, which has to be exported (otflow.datasets.gas)."
    path = find_file(folder, ("gas/ethylene_CO.csv", "gas/ethylene_CO.npy"), hint)
    dropped = ("Time", "Meth", "Eth")
    if path.suffix == ".csv":
        frame = require("polars", "tables").read_csv(path, infer_schema_length=None)
        if set(dropped) - set(frame.columns):
            raise ValueError(f"{path}: expected columns {dropped}; got {frame.columns}.")
        frame = frame.drop(*dropped)
        names, x = tuple(frame.columns), frame.to_numpy().astype(np.float64)
    else:
        x = read_matrix(path)[:, 3:]
        names = numbered("sensor", x.shape[1])
    kept = _uncorrelated(x)
    x, names = x[:, kept], tuple(names[j] for j in kept)
    shift, scale = x.mean(axis=0), x.std(axis=0, ddof=1)  # of all rows, as published
    parts = cut_tail((x - shift) / scale)
    source = f"{path.name}: correlated columns dropped, z-scored by all rows"
    return Table(*parts, "gas", names, shift, scale, source)


def hepmass(folder: str | Path | None = None) -> Table:
    """HEPMASS: signal events of particle collisions at mass 1000; 21 columns.

    From hepmass/1000_train.csv and 1000_test.csv (or .csv.gz). Rows of label 1; z-scores by the
    training rows; columns whose smallest value occurs more than five times are dropped; the last
    tenth of the training rows validates.

    Raises:
        FileNotFoundError: a file is missing.
    """
    hint = f"{_ARCHIVE}: hepmass/1000_train.csv and hepmass/1000_test.csv, plain or as .csv.gz."
    polars = require("polars", "tables")
    tables = []
    for part in ("train", "test"):
        names = (f"hepmass/1000_{part}.csv", f"hepmass/1000_{part}.csv.gz")
        path = find_file(folder, names, hint)
        tables.append(polars.read_csv(path, truncate_ragged_lines=True, infer_schema_length=10_000))
    columns = tables[0].columns
    train, test = (t.to_numpy()[:, : len(columns)].astype(np.float64) for t in tables)
    train, test = (x[x[:, 0] == 1, 1:] for x in (train, test))  # the test file has a column more
    kept = np.flatnonzero((train == train.min(axis=0)).sum(axis=0) <= _MOST_REPEATS)
    train, test = train[:, kept], test[:, kept]
    shift, scale = train.mean(axis=0), train.std(axis=0, ddof=1)
    train, test = (train - shift) / scale, (test - shift) / scale
    train, validation = np.split(train, [len(train) - int(0.1 * len(train))])
    names = tuple(columns[1:][j].strip() for j in kept)
    source = "1000_train.csv, 1000_test.csv: label 1, discrete columns dropped, z-scored"
    return Table(train, validation, test, "hepmass", names, shift, scale, source)


def miniboone(folder: str | Path | None = None) -> Table:
    """MINIBOONE: neutrino events, 36,488 rows, 43 columns; from miniboone/data.npy.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: not a matrix of 43 columns.
    """
    path = find_file(folder, ("miniboone/data.npy",), f"{_ARCHIVE}: miniboone/data.npy.")
    parts = cut_tail(read_matrix(path, 43))
    return standardised(parts, "miniboone", numbered("x", 43), f"{path.name}: z-scored")


def bsds300(folder: str | Path | None = None) -> Table:
    """BSDS300: 8 x 8 patches of photographs less their means, 63 columns, not z-scored.

    From BSDS300/BSDS300.hdf5, which holds the published split; needs h5py (otflow[hdf5]).

    Raises:
        FileNotFoundError: the file is missing.
        ImportError: h5py is.
    """
    path = find_file(folder, ("BSDS300/BSDS300.hdf5",), f"{_ARCHIVE}: BSDS300/BSDS300.hdf5.")
    h5py = require("h5py", "hdf5")
    with h5py.File(path, "r") as file:
        parts = [np.asarray(file[name], np.float64) for name in ("train", "validation", "test")]
    d = parts[0].shape[1]
    names, source = numbered("pixel_", d), f"{path.name}: as prepared"
    return Table(parts[0], parts[1], parts[2], "bsds300", names, np.zeros(d), np.ones(d), source)


def _uncorrelated(x: Float64[np.ndarray, "n d"]) -> list[int]:
    """Columns left when, while two correlate by more than 0.98, the first of such goes."""
    kept = list(range(x.shape[1]))
    correlated = np.corrcoef(x, rowvar=False) > _MOST_CORRELATED
    while True:
        counts = correlated[np.ix_(kept, kept)].sum(axis=1)
        if not (counts > 1).any():
            return kept
        del kept[int(np.argmax(counts > 1))]
