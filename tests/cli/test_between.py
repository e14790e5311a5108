"""`otflow between`: tables and cells in, carried rows out."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from otflow import Between
from otflow.cli.app import app
from otflow.data.tables import Table, read_table, write_table
from otflow.estimator.cells import read_cells, write_cells
from otflow.training import Watch
from tests.cells import cells
from tests.fakes import forbid_training, no_plan, no_training
from tests.report.documents import CERTIFICATE

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two populations, and the same with a column that may be a condition."""
    folder = tmp_path_factory.mktemp("made")
    x, y = RNG.standard_normal((60, 2)), 5 + RNG.standard_normal((60, 2))
    c = RNG.uniform(-1, 1, (2, 60, 1)) * np.array([0.5, 1.0])[:, None, None]
    write_table(folder / "x.csv", Table(x, ("a", "b")))
    write_table(folder / "y.csv", Table(y, ("a", "b")))
    for name, rows, own in (("xc", x, c[0]), ("yc", y, c[1])):
        write_table(folder / f"{name}.csv", Table(np.hstack([own, rows]), ("c", "a", "b")))
    write_table(folder / "other.csv", Table(y, ("a", "z")))
    return folder


@pytest.fixture
def here(made, monkeypatch):
    no_training(monkeypatch)
    no_plan(monkeypatch)
    monkeypatch.chdir(made)
    return made


def run(*words, code=0):
    quick = ["--n-steps", "1", "--max-components", "1"]
    result = CliRunner().invoke(app, ["between", *map(str, words), *quick])
    assert result.exit_code == code, result.output
    return result


def test_tables(here):
    told = run("x.csv", "y.csv", "--out", "moved.csv", "--model", "map.otflow").stdout
    moved, x = read_table("moved.csv"), read_table("x.csv").values
    assert told == "moved.csv: 60 rows carried, 2 columns.\n"
    assert moved.columns == ("a", "b")
    np.testing.assert_allclose(moved.values, Between.load("map.otflow").transform(x), rtol=1e-5)
    run("x.csv", "y.csv", "--out", "half.npy", "--at", 0.5)
    np.testing.assert_allclose(read_table("half.npy").values, 0.5 * (x + moved.values), rtol=1e-5)


def test_names_that_hold_commas(here):
    values = read_table("x.csv").values
    for name in ("xn.csv", "yn.csv"):
        write_table(name, Table(values, ("a, of all", "b")))
    run("xn.csv", "yn.csv", "--out", "m.csv", "--columns", 'b,"a, of all"')
    assert read_table("m.csv").columns == ("b", "a, of all")


def test_through_pipes(here):
    result = run("x.csv", "y.csv", "--out", "-")
    assert result.stdout.splitlines()[0] == "a,b"
    assert len(result.stdout.splitlines()) == 61


@pytest.mark.parametrize("columns", [[], ["--columns", "a,b"]])
def test_a_condition_stays(here, columns):
    run("xc.csv", "yc.csv", "--out", "moved.csv", "--condition", "c", *columns)
    moved, x = read_table("moved.csv"), read_table("xc.csv")
    assert moved.columns == ("a", "b", "c")
    np.testing.assert_array_equal(moved.values[:, 2], x.values[:, 0])
    assert np.abs(moved.values[:, :2].mean(axis=0) - 5).max() < 0.5


def test_a_certificate_of_rows_held_out(here, monkeypatch):
    """A fifth of both, none of which the map is fitted to; every row is carried."""
    seen = {}

    def certify(self, x, y, *given, **options):
        seen.update(x=x, y=y, scale=self.model.standardizer_, **options)
        return CERTIFICATE

    monkeypatch.setattr(Between, "certify", certify)
    result = run("x.csv", "y.csv", "--out", "m.npy", "--certify", "--seconds", 7, "--json")
    found = json.loads(result.stdout)
    assert found["certificate"] == CERTIFICATE.to_dict()
    assert (found["rows"], len(seen["x"]), len(seen["y"]), seen["seconds"]) == (60, 12, 12, 7.0)
    rows = [read_table(f"{name}.csv").values for name in ("x", "y")]
    fitted = [
        np.array([row for row in whole if not (held == row).all(axis=1).any()])
        for whole, held in zip(rows, (seen["x"], seen["y"]), strict=True)
    ]
    np.testing.assert_allclose(
        seen["scale"].mean, np.mean([z.mean(axis=0) for z in fitted], axis=0)
    )
    told = run("x.csv", "y.csv", "--out", "m.npy", "--certify").stdout
    assert f"transport in [{CERTIFICATE.lower:.4g}, {CERTIFICATE.upper:.4g}] (95%)" in told


def test_a_run_that_is_stopped_goes_on(made, tmp_path, monkeypatch):
    """The same rows arrive as of a run that was not stopped; the map so far is kept."""
    no_plan(monkeypatch)
    monkeypatch.chdir(tmp_path)
    words = [made / "x.csv", made / "y.csv", "--max-iter", 50]
    run(*words, "--out", "whole.npy")

    def stop(self, phase, row):
        if row["iteration"] == 25:
            raise KeyboardInterrupt

    words += ["--out", "m.npy", "--model", "m.otflow", "--checkpoint", "c"]
    with monkeypatch.context() as patch:
        patch.setattr(Watch, "report", stop)
        told = " ".join(run(*words, "--checkpoint-every", 25, code=130).stderr.split())
    assert "the map of the best weights so far is in m.otflow. Go on with" in told
    assert "(the state is in c)" in told
    Between.load("m.otflow")
    assert "c holds a run" in run(*words, code=2).stderr
    assert "alpha (100.0 there, 3.0 now)" in run(*words, "--resume", "--alpha", 3, code=2).stderr
    run(*words, "--resume")
    np.testing.assert_array_equal(read_table("m.npy").values, read_table("whole.npy").values)


def test_cells(here, tmp_path):
    write_cells(tmp_path / "d.h5ad", cells())
    words = ["--time", "day", "--from", "0", "--to", "1", "--obsm", "X_pca"]
    run(tmp_path / "d.h5ad", "--out", tmp_path / "m.h5ad", *words)
    found = read_cells(tmp_path / "m.h5ad").obsm["X_pca_at_1"]
    assert np.isfinite(found[:40]).all()
    assert np.isnan(found[40:]).all()
    run(tmp_path / "m.h5ad", "--out", tmp_path / "half.h5ad", *words, "--at", 0.5)
    half = read_cells(tmp_path / "half.h5ad").obsm
    whole = 0.5 * (half["X_pca"][:40] + found[:40])
    np.testing.assert_allclose(half["X_pca_at_0.5_to_1"][:40], whole, rtol=1e-5)
    told = run(tmp_path / "m.h5ad", "--out", tmp_path / "n.h5ad", *words, code=2).stderr
    assert "key: expected one that obsm does not have" in told


BAD = {
    "no second": ("x.csv --out m.csv", "SECOND: expected one with tables; got none."),
    "other columns": ("x.csv other.csv --out m.csv", "SECOND: expected the columns a, b"),
    "too far": ("x.csv y.csv --out m.csv --at 2", "--at: expected a number in [0, 1]"),
    "nothing to resume": ("x.csv y.csv --out m.csv --resume", "resume: expected a checkpoint"),
    "no steps": ("x.csv y.csv --out m.csv --checkpoint-every 0", "checkpoint_every: expected"),
    "a folder": ("x.csv y.csv --out m.csv --checkpoint .", "it is a folder"),
    "a time": ("x.csv y.csv --out m.csv --time day", "--time: expected none with tables"),
    "cells and a table": (
        "d.h5ad y.csv --out m.h5ad --time day --from 0 --to 1",
        "SECOND: expected none with a .h5ad file",
    ),
    "cells to a table": (
        "d.h5ad --out m.csv --time day --from 0 --to 1",
        "--out: expected a .h5ad file, as FIRST is; got m.csv.",
    ),
    "nothing to carry": (
        "x.csv y.csv --out m.csv --condition a,b",
        "--condition: expected to leave columns to carry; got a,b.",
    ),
    "no time": ("d.h5ad --out m.h5ad", "--time: expected one with a .h5ad file; got none."),
    "a condition": ("x.csv y.csv --out m.csv --condition c", "c"),
}


@pytest.mark.parametrize(("words", "message"), BAD.values(), ids=BAD)
def test_bad_options(here, monkeypatch, words, message):
    forbid_training(monkeypatch)
    assert message in run(*words.split(), code=2).stderr
