"""`otflow fit --stream` and `--distributed`: pieces of a table, processes of a job."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars
import pytest
from typer.testing import CliRunner

import otflow
from otflow.cli.app import app
from otflow.estimator.loading import load
from tests.fakes import no_training

TINY = "--stream --n-steps 1 --depth 0 --width 4 --batch-size 64 --out m --json"
X = np.random.default_rng(0).standard_normal((300, 2)) @ [[2.0, 0.5], [0.0, 0.3]] + [10.0, -3.0]
NAMES = ("height", "weight")
JOB = ("OTFLOW_", "SLURM_", "XLA_FLAGS")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with three shards and no job in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(JOB)]:
        monkeypatch.delenv(name)
    (tmp_path / "shards").mkdir()
    for i, part in enumerate(np.split(X, 3)):
        polars.DataFrame(part, NAMES).write_parquet(f"shards/{i}.parquet")
    polars.DataFrame(X, NAMES).write_csv("data.csv")
    return tmp_path


def run(*words, code=0):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == code, result.output
    return result


def one_line(result):
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("source", ["shards", "shards/*.parquet", "shards/?.parquet"])
def test_a_stream_becomes_a_model(folder, monkeypatch, source):
    no_training(monkeypatch)
    found = json.loads(run("fit", source, *TINY.split()).stdout)
    assert (found["rows"], found["columns"]) == (300, 2)
    assert (found["options"]["data"], found["options"]["stream"]) == (source, True)
    model = load("m")
    assert model.columns_ == NAMES
    np.testing.assert_allclose(model.standardizer_.mean, X.mean(axis=0), atol=0.1)
    scored = json.loads(run("score", "m", "shards/1.parquet", "--json").stdout)
    expected = model.score_samples(polars.DataFrame(X[100:200], NAMES)).mean()
    assert scored["log_prob"] == pytest.approx(expected, rel=1e-12)
    assert "height, weight" in run("info", "m").stdout


def test_columns_of_a_stream_and_its_options_fed_back(folder, monkeypatch):
    no_training(monkeypatch)
    (folder / "run.toml").write_text(
        'data = "shards"\nout = "m"\nstream = true\ncolumns = ["weight", "height"]\n'
    )
    run("fit", "--config", "run.toml")
    assert load("m").columns_ == ("weight", "height")


def test_a_stream_trains(folder):
    found = json.loads(run("fit", "shards", *TINY.split(), "--max-iter", "50").stdout)
    assert found["status"] == "max_iter"
    objective = load("m").history_["objective"]
    assert len(objective) == 3
    assert np.isfinite(objective).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nothing/*.parquet --stream", "nothing/*.parquet has none"),
        ("empty --stream", "empty has none"),
        ("mixed --stream", "expected the columns of mixed/0.parquet; got others: mixed/1.parquet"),
        (
            "nan --stream",
            "nan/0.parquet: expected finite numbers; got NaN or infinity in column(s)",
        ),
        ("data.csv --stream", "expected .parquet or .npy files; got data.csv"),
        ("- --stream", "expected .parquet or .npy files"),
        ("shards --stream --columns height,size", "expected different ones of height, weight"),
        ("shards --stream --natural-iter 3", "natural_iter: expected 0 with a ShardedTable"),
        ("shards/*.parquet", "no such file: shards/*.parquet"),
        ("data.csv --distributed", "OTFLOW_COORDINATOR, OTFLOW_PROCESSES and OTFLOW_PROCESS"),
    ],
)
def test_errors(folder, words, message):
    for name in ("empty", "mixed", "nan"):
        (folder / name).mkdir()
    polars.DataFrame(X, NAMES).write_parquet("mixed/0.parquet")
    polars.DataFrame(X, ("height", "size")).write_parquet("mixed/1.parquet")
    bad = X.copy()
    bad[7, 1] = np.nan
    polars.DataFrame(bad, NAMES).write_parquet("nan/0.parquet")
    assert message in one_line(run("fit", *words.split(), "--out", "m", code=2))
    assert not (folder / "m").exists()


def test_a_job_of_one_process(folder, monkeypatch):
    no_training(monkeypatch)
    place = {"COORDINATOR": "127.0.0.1:1", "PROCESSES": "1", "PROCESS": "0"}
    for name, value in place.items():
        monkeypatch.setenv(f"OTFLOW_{name}", value)
    run("fit", "data.csv", "--distributed", "--out", "m")
    assert load("m").columns_ == NAMES


def job(folder, *sources):
    """(exit code, output, errors) of each process of `otflow fit --distributed`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"OTFLOW_COORDINATOR": f"127.0.0.1:{port}", "OTFLOW_PROCESSES": str(len(sources))}
    shared |= {"PYTHONPATH": str(Path(otflow.__file__).parents[1])}  # this one, from any folder
    shared |= {"JAX_NUM_CPU_DEVICES": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    small = ["--out", "m", "--distributed", "--json", "--width", "4", "--max-iter", "25"]
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "otflow", "fit", source, *small],
            env=os.environ | shared | {"OTFLOW_PROCESS": str(i)},
            cwd=folder,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        for i, source in enumerate(sources)
    ]
    try:
        told = [process.communicate(timeout=200) for process in running]
    finally:
        for process in running:
            process.kill()
    return [(p.returncode, *texts) for p, texts in zip(running, told, strict=True)]


@pytest.mark.slow
def test_two_processes_write_one_model(folder):
    (code, out, errors), other = job(folder, "data.csv", "data.csv")
    assert code == 0, errors
    assert other == (0, "", "")
    assert json.loads(out)["rows"] == 300  # nothing of Gloo's before it
    assert load(folder / "m").columns_ == NAMES


@pytest.mark.slow
def test_an_error_in_one_process_ends_the_other(folder):
    first, second = job(folder, "data.csv", "missing.csv")
    assert second[:2] == (70, "")
    assert "no such file: missing.csv" in second[2]
    assert first[:2] == (70, "")
    assert "process 1 of 2 was lost" in first[2]
    assert not (folder / "m").exists()
