"""`otflow report`: pages from files and folders, and errors in one line."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from otflow import OTFlow
from otflow.cli.app import app
from otflow.studies.store import Store
from tests.fakes import SMALL, no_training
from tests.report.documents import CERTIFICATE, alpha_store

ROWS = np.random.default_rng(0).standard_normal((120, 2)) * [1.0, 3.0] + [0.0, 5.0]
TINY = SMALL | {"scheme": "conforming", "n_steps": 1, "depth": 0}


@pytest.fixture
def files(tmp_path, monkeypatch):
    no_training(monkeypatch)
    OTFlow(**TINY).fit(ROWS).save(tmp_path / "m.otflow")
    np.save(tmp_path / "x.npy", ROWS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words, code=0):
    result = CliRunner().invoke(app, ["report", *(str(word) for word in words)])
    assert result.exit_code == code, result.output
    if code:
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
    return result


def test_a_model_with_rows_and_a_certificate(files):
    (files / "c.json").write_text(json.dumps(CERTIFICATE.to_dict()))
    options = ("--certificate", "c.json", "--truth", 1.0, "--image", "1x2")
    found = json.loads(run("m.otflow", "x.npy", *options, "--out", "r.html", "--json").stdout)
    text = (files / "r.html").read_text()
    assert found["bytes"] == (files / "r.html").stat().st_size < 8e6
    for words in ("OT-Flow report: m.otflow", "all 120 rows of x.npy", "paths are not straight"):
        assert words in text


def test_figures(files):
    """Of a conditional model, whose page has few; tests/report has the others."""
    OTFlow(**TINY).fit(ROWS, condition=np.arange(120.0)[:, None]).save("conditional.otflow")
    (files / "c.json").write_text(json.dumps(CERTIFICATE.to_dict()))
    told = run("conditional.otflow", "--certificate", "c.json", "--figures", "f").stdout
    assert "figures in f" in told
    assert {"bracket.pdf"} < {path.name for path in (files / "f").iterdir()}
    assert all(path.read_bytes().startswith(b"%PDF") for path in (files / "f").iterdir())


def test_a_study(files):
    alpha_store(files / "s")
    assert "report.html: " in run("s").stdout
    assert "KL falls like" in (files / "report.html").read_text()


def test_errors(files):
    assert "no such file: none" in run("none", code=2).stderr
    assert "not a readable otflow model" in run("x.npy", code=2).stderr
    np.save(files / "wide.npy", np.zeros((50, 3)))
    assert "features" in run("m.otflow", "wide.npy", code=2).stderr
    assert "HEIGHTxWIDTH" in run("m.otflow", "--image", "8", code=2).stderr
    assert "--certify: expected with DATA" in run("m.otflow", "--certify", code=2).stderr
    (files / "bad.json").write_text("{}")
    assert "not a certificate" in run("m.otflow", "--certificate", "bad.json", code=2).stderr
    assert "cannot write" in run("m.otflow", "--out", "no/r.html", code=2).stderr


def test_folders_that_cannot_be_shown(files):
    (files / "empty").mkdir()
    assert "holds no study" in run("empty", code=2).stderr
    Store.create(files / "bare", {"kind": "alpha", "problem": "gaussian", "dim": 2}).close()
    assert "expected a study with results; got none" in run("bare", code=2).stderr
    assert "--image: expected with a model" in run("bare", "--image", "1x2", code=2).stderr
    assert not (files / "report.html").exists()
