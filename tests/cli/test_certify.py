"""`otflow certify`: the table, JSON, and rows in the model's own units."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import otflow.certificates
from otflow import OTFlow, load
from otflow.cli.app import app
from tests.fakes import SMALL, no_training

ROWS = np.random.default_rng(0).standard_normal((120, 2)) * [1.0, 3.0] + [0.0, 5.0]
TINY = SMALL | {"scheme": "conforming", "n_steps": 1, "depth": 0}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A model at its Gaussian start, and rows to certify it on."""
    no_training(monkeypatch)
    OTFlow(**TINY).fit(ROWS).save(tmp_path / "m")
    np.save(tmp_path / "x.npy", ROWS)
    return tmp_path


def run(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def test_json_and_table(files, monkeypatch):
    """No time to fit: any u is valid. The JSON is the library's own certificate; the table too.

    The library is asked once, by the command; the second time it answers what it answered then.
    """
    real, made = otflow.certificates.certify_model, []

    def certify_model(model, rows, **options):
        assert np.array_equal(model.standardizer_.mean, load(files / "m").standardizer_.mean)
        assert np.array_equal(rows, ROWS)
        assert options == {"seconds": 1e-9, "seed": 3}
        made.append(made[0] if made else real(model, rows, **options))
        return made[-1]

    monkeypatch.setattr(otflow.certificates, "certify_model", certify_model)
    command = ("certify", files / "m", files / "x.npy", "--seconds", "1e-9", "--seed", 3)
    found = json.loads(run(*command, "--json").stdout)
    assert 0 <= found["lower"] < found["upper"]
    assert found["space"] == "the standardised columns"
    assert found["dim"] == 2
    told = run(*command).stdout
    assert told.startswith(str(made[0]).splitlines()[0])
    for question, _ in made[0].answers:
        assert question in told
    told = run(*command, "--full").stdout
    for words in ("1/2 W2^2", "proved (95 %)", "estimated", "Error budget", "(largest)"):
        assert words in told
    assert found == json.loads(json.dumps(made[0].to_dict()))
    assert len(made) == 3


def test_rows_of_another_width(files):
    np.save(files / "wide.npy", np.zeros((50, 3)))
    assert "error:" in run("certify", files / "m", files / "wide.npy", code=2).stderr


def test_help_names_the_command():
    assert "certify" in run("--help").stdout
    assert "Usage" in run("certify", "--help").stdout
