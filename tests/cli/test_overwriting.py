"""No command writes over what it reads, by any name of the file, and it says so before any work."""

import inspect
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from otflow import OTFlow
from otflow.cli.app import app
from otflow.studies.store import Store
from tests.fakes import SMALL, forbid_training, no_training

CSV = "a,b\n" + "".join(f"{x},{y}\n" for x, y in np.random.default_rng(0).random((60, 2)))
CASES = [  # words of the command, the option that is asked for the file of the input, the input
    ("between x.csv y.csv", "--out", "x.csv", "FIRST"),
    ("between x.csv y.csv", "--out", "y.csv", "SECOND"),
    ("between x.csv y.csv --out q.csv", "--model", "y.csv", "SECOND"),
    ("between x.csv y.csv --out q.csv", "--checkpoint", "x.csv", "FIRST"),
    ("between x.csv y.csv --out q.csv --resume", "--checkpoint", "y.csv", "SECOND"),
    ("between d.h5ad --time t --from 0 --to 1 --out q.h5ad", "--checkpoint", "d.h5ad", "FIRST"),
    ("between d.h5ad --time t --from 0 --to 1", "--out", "d.h5ad", "FIRST"),
    ("score m.otflow x.csv", "--out", "x.csv", "DATA"),
    ("score data.npy x.csv", "--out", "data.npy", "MODEL"),
    ("sample data.npy", "--out", "data.npy", "MODEL"),
    ("export m.otflow", "--out", "m.otflow", "MODEL"),
    ("fit x.csv", "--out", "x.csv", "DATA"),
    ("fit x.csv --out q", "--log", "x.csv", "DATA"),
    ("fit x.csv --out q", "--checkpoint", "x.csv", "DATA"),
    ("fit x.csv --out q --resume", "--checkpoint", "x.csv", "DATA"),
    ("fit x.csv --blocks 2", "--out", "x.csv", "DATA"),
    ("fit x.csv --out q --blocks 2 --resume", "--checkpoint", "x.csv", "DATA"),
    ("fit x.csv --config c.toml", "--out", "c.toml", "--config"),
    ("fit x.csv --config c.toml --out q", "--log", "c.toml", "--config"),
    ("fit shards --stream", "--out", "shards/1.npy", "DATA"),
    ("fit shards/*.npy --stream --out q", "--log", "shards/2.npy", "DATA"),
    ("report m.otflow", "--out", "m.otflow", "MODEL_OR_STUDY"),
    ("report m.otflow x.csv", "--out", "x.csv", "DATA"),
    ("report m.otflow --certificate c.json", "--out", "c.json", "--certificate"),
    ("report s", "--out", "s/study.sqlite", "MODEL_OR_STUDY"),
    ("report s", "--out", "s/weights/w.safetensors", "MODEL_OR_STUDY"),
]
# what each command reads and writes; a new path has to be looked at here
PATHS = {
    "between": {"first", "second", "out", "model", "checkpoint"},
    "certify": {"model", "data"},
    "demo": {"out"},
    "export": {"model", "out"},
    "fit": {"data", "out", "checkpoint", "log", "tensorboard", "config"},
    "info": {"model"},
    "report": {"target", "data", "out", "figures", "certificate"},
    "sample": {"model", "out"},
    "score": {"model", "data", "out"},
    "study all": {"out"},
    "study alpha": {"out", "data"},
    "study density": {"out"},
    "study jko": {"out"},
    "study growth": {"out"},
    "study samples": {"out", "data"},
    "study show": {"folder"},
    "study steps": {"out"},
    "study width": {"out"},
}


def commands(group=app, before=""):
    """The parameters of every command, by its words."""
    for command in group.registered_commands:
        name = command.name or command.callback.__name__
        yield before + name, inspect.signature(command.callback).parameters.values()
    for inner in group.registered_groups:
        yield from commands(inner.typer_instance, f"{before}{inner.name} ")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One file of every kind."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        no_training(patch)
        OTFlow(**SMALL).fit(np.random.default_rng(0).random((60, 2))).save(folder / "m.otflow")
    (folder / "data.npy").write_bytes((folder / "m.otflow").read_bytes())  # a model by any name
    for name in ("x.csv", "y.csv", "d.h5ad"):
        (folder / name).write_text(CSV)
    (folder / "c.toml").write_text("width = 8\n")
    (folder / "c.json").write_text("{}")
    (folder / "shards").mkdir()
    for i in range(3):
        np.save(folder / "shards" / f"{i}.npy", np.random.default_rng(i).random((20, 2)))
    Store.create(folder / "s", {"kind": "alpha"}).close()
    (folder / "s" / "weights" / "w.safetensors").write_text("weights")
    return folder


@pytest.fixture
def here(made, monkeypatch):
    monkeypatch.chdir(made)
    forbid_training(monkeypatch)
    before = contents(made)
    yield made
    assert contents(made) == before


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(words, name):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, result.output
    assert f"expected another file than {name}, which it would replace" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("words", "option", "path", "name"), CASES)
def test_an_output_that_is_an_input(here, words, option, path, name):
    for spelling in (path, here / path, Path(path).parent / "." / ".." / here.name / path):
        if not Path(spelling).exists():
            continue
        refused([*words.split(), option, str(spelling)], name)


@pytest.mark.parametrize("how", [os.symlink, os.link])
@pytest.mark.parametrize(
    ("words", "option", "path", "name"), CASES[:1] + CASES[11:14] + CASES[19:20]
)
def test_links(here, tmp_path, how, words, option, path, name):
    link = tmp_path / f"link{Path(path).suffix}"
    how(here / path, link)
    refused([*words.split(), option, str(link)], name)


def test_two_outputs_in_one_file(here):
    refused(["fit", "x.csv", "--out", "q", "--log", "./q"], "--out")
    refused(["between", "x.csv", "y.csv", "--out", "q.csv", "--model", "q.csv"], "--out")
    refused(["between", "x.csv", "y.csv", "--out", "q.csv", "--checkpoint", "q.csv"], "--out")
    refused(["fit", "x.csv", "--out", "q", "--log", "log", "--checkpoint", "log"], "--log")


def test_pictures(here, tmp_path):
    """A figure would replace a certificate that somebody called bracket.pdf."""
    pytest.importorskip("plotly")
    path = tmp_path / "bracket.pdf"
    path.write_text("{}")
    words = ["report", "m.otflow", "--out", str(tmp_path / "r.html"), "--certificate", str(path)]
    refused([*words, "--figures", str(tmp_path)], "--certificate")
    (tmp_path / "alpha.png").write_text(CSV)
    words = ["study", "alpha", "--out", str(tmp_path), "--data", str(tmp_path / "alpha.png")]
    refused(words, "--data")
    assert path.read_text() == "{}"


def test_every_path_of_every_command_is_known():
    found = {
        name: {p.name for p in parameters if "Path" in str(p.annotation)}
        for name, parameters in commands()
    }
    assert {name: paths for name, paths in found.items() if paths} == PATHS
