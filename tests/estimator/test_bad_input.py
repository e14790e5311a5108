"""Bad input is refused with a clear message before anything is computed.

Here training fails the test that reaches it; on the command line the answer is one line on
standard error and exit code 2.
"""

import numpy as np
import polars
import pytest
from typer.testing import CliRunner

import otflow.estimator.estimator
from otflow.cli.app import app
from otflow.estimator.estimator import OTFlow
from otflow.targets import StandardNormal
from tests.fakes import SMALL, forbid_training, no_training

X = np.random.default_rng(0).standard_normal((30, 2))


def spoilt(value, row=3, column=1):
    data = X.copy()
    data[row, column] = value
    return data


def constant(column=1):
    data = X.copy()
    data[:, column] = 3.25
    return data


@pytest.fixture
def no_compute(monkeypatch):
    forbid_training(monkeypatch)


@pytest.fixture
def model(monkeypatch):
    """Fitted, on named columns."""
    no_training(monkeypatch)
    fitted = OTFlow(**SMALL).fit(polars.DataFrame(X, schema=["height", "weight"]))
    monkeypatch.setattr(type(fitted.flow_), "push", _no_push)
    return fitted


def _no_push(*args):
    raise AssertionError("the flow was evaluated")


# --- data ----------------------------------------------------------------------------------

BAD_DATA = {
    "NaN": (spoilt(np.nan), "finite numbers; got NaN or infinity in column.*x1 .1"),
    "infinity": (spoilt(np.inf), "finite numbers; got NaN or infinity in column.*x1 .1"),
    "minus infinity": (spoilt(-np.inf), "finite numbers; got NaN or infinity in column.*x1 .1"),
    "1-d": (X[:, 0], "Expected 2D array, got 1D array"),
    "3-d": (X[None], "dim 3"),
    "scalar": (3.0, "Expected 2D array, got scalar"),
    "one row": (X[:1], r"1 sample.*minimum of 2"),
    "no rows": (X[:0], r"0 sample.*minimum of 2"),
    "no columns": (X[:, :0], r"0 feature.*minimum of 1"),
    "constant column": (
        constant(),
        r"X: expected columns that vary.*got constant column\(s\) x1\b",
    ),
    "two constant columns": (np.ones((5, 2)), r"constant column\(s\) x0, x1\b"),
    "text": (
        np.array([["a", "b"], ["c", "d"]]),
        r"expected numbers; got text in column\(s\) x0, x1",
    ),
    "complex": (X + 1j, "[Cc]omplex data not supported"),
    "ragged": ([[1.0, 2.0], [3.0]], "inhomogeneous"),
    "nothing": (None, "Expected 2D array, got scalar"),
}


@pytest.mark.parametrize(("data", "message"), BAD_DATA.values(), ids=BAD_DATA.keys())
def test_data_to_fit(no_compute, data, message):
    with pytest.raises((ValueError, TypeError), match=message):
        OTFlow(**SMALL).fit(data)


def test_a_constant_column_of_a_frame_is_named(no_compute):
    frame = polars.DataFrame(constant(), schema=["height", "weight"])
    with pytest.raises(ValueError, match=r"got constant column\(s\) weight\b"):
        OTFlow(**SMALL).fit(frame)


def test_a_text_column_of_a_frame_is_named(no_compute):
    frame = polars.DataFrame({"height": [1.7, 1.8], "sex": ["f", "m"]})
    with pytest.raises(ValueError, match="sex"):
        OTFlow(**SMALL).fit(frame)


def test_a_column_with_nan_is_named(no_compute):
    frame = polars.DataFrame(spoilt(np.nan), schema=["height", "weight"])
    with pytest.raises(ValueError, match="weight"):
        OTFlow(**SMALL).fit(frame)


@pytest.mark.filterwarnings("ignore:X. column")
def test_a_column_that_is_constant_once_rows_are_held_out(no_compute):
    """One row of thirty differs; some seed holds it out."""
    data = constant()
    data[4, 1] = 0.0
    for seed in range(20):
        settings = SMALL | {"random_state": seed, "validation_fraction": 0.5}
        with pytest.raises((ValueError, AssertionError), match=r"constant|training was reached"):
            OTFlow(**settings).fit(data)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (spoilt(np.nan), "got NaN or infinity in column"),
        (np.ones((4, 3)), "3 features.*expecting 2"),
        (X[:, 0], "2D array"),
        (X[:0], "0 sample"),
    ],
    ids=["NaN", "three columns", "1-d", "no rows"],
)
def test_validation_rows(no_compute, rows, message):
    with pytest.raises(ValueError, match=message):
        OTFlow(**SMALL).fit(X, X_val=rows)


@pytest.mark.parametrize("method", ["score_samples", "score", "transform", "inverse_transform"])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones((4, 3)), r"(3 features.*expecting 2|expected 2 columns; got 3)"),
        (np.ones((4, 1)), r"(1 features.*expecting 2|expected 2 columns; got 1)"),
        (spoilt(np.nan), "got NaN or infinity in column|contains (NaN|infinity)"),
        (spoilt(np.inf), "got NaN or infinity in column|contains (NaN|infinity)"),
        (X[0], "2D array"),
    ],
    ids=["three columns", "one column", "NaN", "infinity", "1-d"],
)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_rows_for_a_fitted_model(model, method, rows, message):
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(rows)


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (0, ValueError, "n_samples: expected an integer >= 1; got 0"),
        (-1, ValueError, "n_samples: expected an integer >= 1; got -1"),
        (2.5, TypeError, "n_samples: expected an integer >= 1; got float"),
        ("3", TypeError, "n_samples: expected an integer >= 1; got str"),
    ],
)
def test_number_of_samples(model, n, error, message):
    with pytest.raises(error, match=message):
        model.sample(n)


# --- hyperparameters -----------------------------------------------------------------------

BAD_SETTINGS = [
    ("alpha", -1.0, ValueError, "expected a finite number > 0; got -1"),
    ("alpha", 0, ValueError, "expected a finite number > 0; got 0"),
    ("alpha", float("nan"), ValueError, "expected a finite number > 0; got nan"),
    ("alpha", float("inf"), ValueError, "expected a finite number > 0; got inf"),
    ("alpha", "3", TypeError, "expected a number > 0; got str"),
    ("beta", -0.5, ValueError, "expected a finite number >= 0; got -0.5"),
    ("n_steps", 0, ValueError, "expected an integer >= 1; got 0"),
    ("n_steps", 2.0, TypeError, "expected an integer >= 1; got float"),
    ("n_probes", -1, ValueError, "expected an integer >= 0; got -1"),
    ("scheme", "euler", ValueError, "expected one of .*rk4.*; got 'euler'"),
    ("scheme", None, ValueError, "expected one of .*rk4.*; got None"),
    ("base", "normal", ValueError, "expected one of .*gaussian.*; got 'normal'"),
    ("base", False, ValueError, "expected one of .*gaussian.*; got False"),
    ("dtype", "float16", ValueError, "expected 'float32' or 'float64'; got float16"),
    ("dtype", None, ValueError, "expected 'float32' or 'float64'; got None"),
    ("dtype", "double precision", ValueError, "expected 'float32' or 'float64'; got"),
    ("target", "normal", TypeError, "expected an object of otflow.targets; got str"),
    ("target", StandardNormal, TypeError, "expected an object of otflow.targets; got"),
    ("target", StandardNormal(3), ValueError, "expected dimension 2; got 3"),
    ("width", 0, ValueError, "expected an integer >= 1; got 0"),
    ("width", 8.0, TypeError, "expected an integer >= 1; got float"),
    ("depth", -1, ValueError, "expected an integer >= 0; got -1"),
    ("max_iter", 0, ValueError, "expected an integer >= 1; got 0"),
    ("batch_size", -1, ValueError, "expected an integer >= 1; got -1"),
    ("learning_rate", 0.0, ValueError, "expected a finite number > 0; got 0"),
    ("patience", 0, ValueError, "expected an integer >= 1; got 0"),
    ("validation_fraction", 1.0, ValueError, r"expected a number in \[0, 1\); got 1"),
    ("validation_fraction", -0.1, ValueError, "expected a finite number >= 0; got -0.1"),
    ("validation_fraction", None, TypeError, "expected a number >= 0; got NoneType"),
]


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    BAD_SETTINGS,
    ids=[f"{name}={value!r:.20}" for name, value, *_ in BAD_SETTINGS],
)
def test_hyperparameters(no_compute, name, value, error, message):
    with pytest.raises(error, match=f"^{name}: {message}"):
        OTFlow(**SMALL | {name: value}).fit(X)


def test_probes_are_for_rk4(no_compute):
    with pytest.raises(ValueError, match=r"^n_probes: expected 0 with scheme 'conforming'"):
        OTFlow(**SMALL | {"scheme": "conforming", "n_probes": 1}).fit(X)


@pytest.mark.parametrize(
    ("seed", "message"), [(-1, "Seed must be between"), ("a", "cannot be used to seed")]
)
def test_random_state(no_compute, seed, message):
    with pytest.raises(ValueError, match=message):
        OTFlow(**SMALL | {"random_state": seed}).fit(X)


@pytest.mark.parametrize("name", ["standardize", "verbose"])
def test_switches_are_true_or_false(no_compute, name):
    with pytest.raises(TypeError, match=f"^{name}: expected"):
        OTFlow(**SMALL | {name: "no"}).fit(X)


# --- files ---------------------------------------------------------------------------------


def test_saving_where_nothing_can_be_written(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot write .*m\.otflow: the folder .*no"):
        model.save(tmp_path / "no" / "m.otflow")
    with pytest.raises(IsADirectoryError, match=r"cannot write .*: it is a folder"):
        model.save(tmp_path)


def test_loading_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*m\.otflow"):
        otflow.load(tmp_path / "m.otflow")


# --- the command line ----------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch, model):
    """Tables and a model, good and bad, in the working folder."""
    monkeypatch.chdir(tmp_path)
    model.save("model.otflow")
    polars.DataFrame(X, schema=["height", "weight"]).write_csv("data.csv")
    np.save("nan.npy", spoilt(np.nan))
    np.save("inf.npy", spoilt(np.inf))
    np.save("flat.npy", X[:, 0])
    np.save("one.npy", X[:1])
    np.save("wide.npy", np.ones((4, 3)))
    np.save("constant.npy", constant())
    (tmp_path / "text.csv").write_text("height,sex\n1.7,f\n1.8,m\n")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3\n")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "header.csv").write_text("a,b\n")
    (tmp_path / "data.txt").write_text("1 2\n")
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.csv").mkdir()
    forbid_training(monkeypatch)
    return tmp_path


BAD_COMMANDS = {
    "fit missing.csv --out m": "no such file: missing.csv",
    "fit folder.csv --out m": "no such file: folder.csv",
    "fit data.txt --out m": "data.txt: expected a suffix of .csv, .parquet, .npy, .npz",
    "fit empty.csv --out m": "empty.csv: not a readable .csv file",
    "fit header.csv --out m": "header.csv: expected at least one row",
    "fit text.csv --out m": "text.csv: expected numeric columns; got sex (String)",
    "fit ragged.csv --out m": "ragged.csv: not a readable .csv file",
    "fit damaged.npz --out m": "damaged.npz: not a readable .npz file",
    "fit flat.npy --out m": "flat.npy: expected an array of shape (n, d); got (30,)",
    "fit nan.npy --out m": "NaN",
    "fit inf.npy --out m": "infinity",
    "fit one.npy --out m": "minimum of 2",
    "fit constant.npy --out m": "constant column(s) x1",
    "fit data.csv --out no/m": "cannot write no/m: the folder no does not exist",
    "fit data.csv --out folder": "cannot write folder: it is a folder",
    "fit data.csv --out /dev/null": "not an ordinary file",
    "fit data.csv --out m --alpha -1": "alpha: expected a finite number > 0; got -1.0",
    "fit data.csv --out m --alpha nan": "alpha: expected a finite number > 0; got nan",
    "fit data.csv --out m --n-steps 0": "n_steps: expected an integer >= 1; got 0",
    "fit data.csv --out m --width 0": "width: expected an integer >= 1; got 0",
    "fit data.csv --out m --scheme euler": "scheme: expected one of",
    "fit data.csv --out m --dtype half": "dtype: expected 'float32' or 'float64'; got",
    "fit data.csv --out m --seed -1": "Seed must be between",
    "score missing.otflow data.csv": "no such file: missing.otflow",
    "score data.csv data.csv": "data.csv: not a readable otflow model",
    "score model.otflow missing.csv": "no such file: missing.csv",
    "score model.otflow data.csv --out no/s.csv": "the folder no does not exist",
    "score model.otflow data.csv --out s.txt": "s.txt: expected a suffix of",
    "sample model.otflow --out s.txt": "s.txt: expected a suffix of",
    "sample model.otflow --out folder.csv": "cannot write folder.csv: it is a folder",
    "sample model.otflow --out no/s.csv": "the folder no does not exist",
    "sample model.otflow --out s.csv -n 0": "n_samples: expected an integer >= 1; got 0",
    "sample missing.otflow --out s.csv": "no such file: missing.otflow",
    "demo --out data.csv": "data.csv",
}


@pytest.mark.parametrize(("command", "message"), BAD_COMMANDS.items(), ids=BAD_COMMANDS.keys())
def test_commands(folder, command, message):
    before = sorted(folder.iterdir())
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert sorted(folder.iterdir()) == before


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_scoring_another_number_of_columns(folder):
    result = CliRunner().invoke(app, ["score", "model.otflow", "wide.npy"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: X has 3 features")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["fit data.csv", "fit data.csv --out m --alpha x", "nonsense"])
def test_usage_errors(folder, command):
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 2
    assert "Usage" in result.stderr
    assert "Traceback" not in result.output
