"""The command line from a table to a model to samples, and how it says that it stopped."""

import json

import numpy as np
import polars
import pytest
from typer.testing import CliRunner

import otflow
import otflow.cli.app
import otflow.estimator.fitting
from otflow.cli.app import app
from otflow.data.tables import Table, read_table, write_table
from otflow.estimator.loading import load
from otflow.support.statistics import Z95
from tests.fakes import no_training, train_arguments, untrained

X = np.random.default_rng(0).standard_normal((120, 2)) @ [[2.0, 0.5], [0.0, 0.3]] + [10.0, -3.0]
NAMES = ("height", "weight")
SMALL = {"n-steps": 1, "depth": 0, "width": 8, "max-iter": 25, "batch-size": 64, "seed": 3}
SETTINGS = [word for name, value in SMALL.items() for word in (f"--{name}", value)]


def run(*args, code=0):
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.csv"
    write_table(path, Table(X, NAMES))
    return path


def test_fit_score_sample(tmp_path, data):
    """With real training: the same numbers as the library gives for the file."""
    model = tmp_path / "m.otflow"
    told = run("fit", data, "--out", model, *SETTINGS).stdout
    assert str(model) in told
    assert "120 rows, 2 columns" in told
    assert "nll" in told
    fitted = load(model)
    frame = polars.DataFrame(X, schema=list(NAMES))
    scores = fitted.score_samples(frame)
    kept = fitted.history_["iteration"].index(fitted.n_iter_)
    assert f"nll {fitted.history_['val_nll'][kept]:.4f} nats" in told

    found = json.loads(run("score", model, data, "--json").stdout)
    half = Z95 * scores.std(ddof=1) / np.sqrt(120)
    assert found["rows"] == 120
    assert found["log_prob"] == pytest.approx(scores.mean(), rel=1e-12)
    assert found["interval_95"] == pytest.approx([scores.mean() - half, scores.mean() + half])
    assert f"{scores.mean():.4f} +- {half:.4f} nats" in run("score", model, data).stdout

    told = run("score", model, data, "--summary").stdout
    assert f"\n{fitted.summary(frame)}" in told  # but for the seconds, which are not printed

    samples = tmp_path / "s.csv"
    run("sample", model, "--out", samples, "-n", 7, "--seed", 5)
    table = read_table(samples)
    assert table.columns == NAMES
    assert np.array_equal(table.values, fitted.sample(7, random_state=5))


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_a_nameless_table_of_another_width_is_told_by_number(tmp_path, data, monkeypatch):
    no_training(monkeypatch)
    run("fit", data, "--out", tmp_path / "m.otflow", *SETTINGS)
    np.save(tmp_path / "wide.npy", np.column_stack([X, X[:, 0]]))
    told = run("score", tmp_path / "m.otflow", tmp_path / "wide.npy", code=2).stderr
    assert "3 features" in told
    assert "2 features" in told


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy", ".npz"])
def test_every_format(tmp_path, monkeypatch, suffix):
    no_training(monkeypatch)
    data, model = tmp_path / f"data{suffix}", tmp_path / "m.otflow"
    write_table(data, Table(X, NAMES))
    run("fit", data, "--out", model, *SETTINGS)
    scores, samples = tmp_path / f"scores{suffix}", tmp_path / f"samples{suffix}"
    found = json.loads(run("score", model, data, "--json", "--out", scores).stdout)
    values = read_table(scores).values
    assert values.shape == (120, 1)
    assert found["log_prob"] == pytest.approx(values.mean(), rel=1e-12)
    run("sample", model, "--out", samples, "-n", 5)
    drawn = read_table(samples)
    assert drawn.values.shape == (5, 2)
    named = suffix in (".csv", ".parquet")
    assert drawn.columns == (NAMES if named else None)
    assert read_table(scores).columns == (("log_prob",) if named else None)


def test_settings_reach_the_estimator(tmp_path, data, monkeypatch):
    no_training(monkeypatch)
    options = {
        "alpha": 7.5,
        "beta": 0.25,
        "width": 6,
        "depth": 2,
        "scheme": "rk4",
        "n_steps": 3,
        "max_iter": 11,
        "batch_size": 9,
        "learning_rate": 0.5,
        "patience": 4,
        "dtype": "float64",
    }
    flags = [x for k, v in options.items() for x in (f"--{k.replace('_', '-')}", v)]
    run("fit", data, "--out", tmp_path / "m", *flags, "--seed", 9)
    assert load(tmp_path / "m").get_params().items() >= (options | {"random_state": 9}).items()


def test_one_row_has_no_interval(tmp_path, data, monkeypatch):
    no_training(monkeypatch)
    run("fit", data, "--out", tmp_path / "m", *SETTINGS)
    write_table(tmp_path / "one.csv", Table(X[:1], NAMES))
    found = json.loads(run("score", tmp_path / "m", tmp_path / "one.csv", "--json").stdout)
    assert found["rows"] == 1
    assert found["interval_95"] is None


@pytest.mark.parametrize(
    ("status", "code", "word"), [("interrupted", 130, "interrupted"), ("non_finite", 2, "n_steps")]
)
def test_a_run_that_stops_early_still_writes_its_model(
    tmp_path, data, monkeypatch, status, code, word
):
    def stopped(*args, **kwargs):
        result = untrained(*args, **kwargs)
        return type(result)(**{**vars(result), "status": status})

    monkeypatch.setattr(otflow.estimator.fitting, "train", stopped)
    result = run("fit", data, "--out", tmp_path / "m", *SETTINGS, code=code)
    assert "best weights so far are in" in result.stderr
    assert word in result.stderr
    assert "Traceback" not in result.output
    assert load(tmp_path / "m").status_ == status


def test_an_interrupt_before_training_writes_nothing(tmp_path, data, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(otflow.estimator.fitting, "train", interrupted)
    result = run("fit", data, "--out", tmp_path / "m", *SETTINGS, code=130)
    assert result.stderr == "error: interrupted.\n"
    assert not (tmp_path / "m").exists()


def test_a_bug_is_not_hidden(tmp_path, data, monkeypatch):
    """Only errors that the user can mend are shortened to a line."""

    def broken(*args, **kwargs):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(otflow.estimator.fitting, "train", broken)
    command = ["fit", data, "--out", tmp_path / "m", *SETTINGS]
    result = CliRunner().invoke(app, [str(word) for word in command])
    assert isinstance(result.exception, ZeroDivisionError)


def test_version_and_help():
    assert run("--version").stdout == f"otflow {otflow.__version__}\n"
    told = run("--help").stdout
    for command in ("demo", "fit", "sample", "score"):
        assert command in told
        assert "Usage" in run(command, "--help").stdout


def test_demo(tmp_path):
    """The small form, which says so; real training on the digits and in the plane.

    The model it writes can be used.
    """
    told = run("demo", "--quick", "--out", tmp_path / "new" / "folder", "--seed", 1).stdout
    folder = tmp_path / "new" / "folder"
    assert sorted(p.name for p in folder.iterdir()) == ["demo.png", "digits.otflow"]
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert load(folder / "digits.otflow").flow_.dim == 64
    for words in ("--quick: tiny flows", "held-out nll, nats", "round-trip error", "8gaussians"):
        assert words in told


def test_the_demo_is_the_large_form_unless_asked(tmp_path, monkeypatch):
    """Only the digits' flow is seen here: training is interrupted."""
    asked = []

    def interrupted(*args, **kwargs):
        asked.append(train_arguments(*args, **kwargs))
        raise KeyboardInterrupt

    monkeypatch.setattr(otflow.estimator.fitting, "train", interrupted)
    told = run("demo", "--out", tmp_path, code=130).stdout
    assert "quick" not in told
    (given,) = asked
    assert (given["config"].max_iter, given["scheme"].n_steps) == (800, 2)
    assert given["potential"].stage.ridges.shape == (2, 128, 64)
    assert sorted(tmp_path.iterdir()) == []


def test_the_baseline_of_the_demo():
    """Held-out nll of a Gaussian against the exact entropy; 4,000 rows: 0.05 nats."""
    from otflow.cli.demo import gaussian_nll

    root = np.array([[2.0, 0.0], [1.0, 0.5]])
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((4000, 2)) @ root.T + [1.0, 2.0] for _ in range(3)]
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * root @ root.T).logabsdet
    assert gaussian_nll(*parts) == pytest.approx(entropy, abs=0.05)
