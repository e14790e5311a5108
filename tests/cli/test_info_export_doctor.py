"""`otflow info`, `export`, `doctor`, and shell completion."""

import importlib.util
import json
import sys

import jax
import numpy as np
import polars
import pytest
from typer.testing import CliRunner

import otflow.cli.doctor as doctor_module
from otflow import OTFlow
from otflow.cli.app import app
from otflow.model import modelfile
from otflow.targets import GaussianMixture
from tests.fakes import SMALL, no_training
from tests.model.test_modelfile import VERSION_1

X = np.random.default_rng(0).standard_normal((60, 2)) * [1.0, 4.0]


def run(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def model(tmp_path, monkeypatch):
    no_training(monkeypatch)
    path = tmp_path / "m"
    OTFlow(**SMALL).fit(polars.DataFrame(X, ["height", "weight"])).save(path)
    return path


def test_info_names_the_target(tmp_path, monkeypatch):
    no_training(monkeypatch)
    mixture = GaussianMixture([0.2, 0.8], np.eye(2), np.stack([np.eye(2)] * 2))
    for target, name in ((None, "StandardNormal"), (mixture, "GaussianMixture, 2 components")):
        OTFlow(**SMALL, target=target).fit(X).save(tmp_path / "m")
        assert json.loads(run("info", tmp_path / "m", "--json").stdout)["target"] == name


def test_info(model, monkeypatch):
    """Everything from the header: the tensors cannot be read here."""
    monkeypatch.setattr(modelfile, "read_tensors", None)
    found = json.loads(run("info", model, "--json").stdout)
    assert found["columns"] == ["height", "weight"]
    assert found["bytes"] == model.stat().st_size
    assert found["settings"]["width"] == 8
    assert found["status"] == "max_iter"
    assert found["validation"] == {"transport": 0.0, "nll": 0.0, "straightness": 0.0}
    assert found["versions"]["jax"] == jax.__version__
    assert found["parts"][:4] == ["Flow", "SumPotential", "GaussianBase", "ResNetPotential"]
    # base: mean 2, basis 4, stretch 2, shift 2
    # network: A 9, b 3, c 1, w 8, weights 24 + 64, biases 16
    assert found["parameters"] == 2 + 4 + 2 + 2 + 9 + 3 + 1 + 8 + 24 + 64 + 16
    told = run("info", model).stdout
    assert "columns: height, weight" in told
    assert "alpha 30.0" in told


def test_info_says_what_the_density_integrates_to(model, tmp_path):
    """Measured (see conftest.py), one by construction, or not measured."""
    assert json.loads(run("info", model, "--json").stdout)["integral"] == "1 +- 0"
    OTFlow(**SMALL | {"scheme": "conforming", "potential": "convex"}).fit(X).save(tmp_path / "c")
    told = json.loads(run("info", tmp_path / "c", "--json").stdout)["integral"]
    assert told == "1: every step is a bijection"
    assert "integral: not measured: `certify` on rows" in run("info", VERSION_1).stdout


def test_score_and_sample_warn_of_an_integral_not_measured(tmp_path):
    polars.DataFrame(X, ["height", "weight"]).write_csv(tmp_path / "x.csv")
    for words in (("score", tmp_path / "x.csv"), ("sample", "--out", tmp_path / "s.csv")):
        with pytest.warns(UserWarning, match="may fold, and the integral"):
            run(words[0], VERSION_1, *words[1:])


def test_info_of_an_older_file():
    assert json.loads(run("info", VERSION_1, "--json").stdout)["versions"] == {"otflow": "0.1.0"}


def test_info_of_another_file(tmp_path):
    (tmp_path / "x").write_text("no model")
    assert "not a readable otflow model" in run("info", tmp_path / "x", code=2).stderr
    assert "no such file" in run("info", tmp_path / "y", code=2).stderr


def test_export(model, tmp_path):
    pytest.importorskip("flatbuffers")
    from jax import export

    found = json.loads(run("export", model, "--out", tmp_path / "p", "--json").stdout)
    assert found == {
        "out": str(tmp_path / "p"),
        "what": "forward",
        "dtype": "float32",
        "shape": ["n", 2],
    }
    program = export.deserialize(bytearray((tmp_path / "p").read_bytes()))
    from otflow import load

    expected = load(model).transform(polars.DataFrame(X, ["height", "weight"]))
    np.testing.assert_allclose(program.call(X.astype(np.float32)), expected, atol=1e-4)


def test_export_refuses(model, tmp_path, monkeypatch):
    assert "folder" in run("export", model, "--out", tmp_path / "no" / "p", code=2).stderr
    assert (
        "what: expected"
        in run("export", model, "--out", tmp_path / "p", "--what", "x", code=2).stderr
    )
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    assert "otflow[export]" in run("export", model, "--out", tmp_path / "p", code=2).stderr
    assert not (tmp_path / "p").exists()


def test_doctor_is_content_here():
    found = json.loads(run("doctor", "--json").stdout)
    states = {check["name"]: check for check in found["checks"]}
    assert found["ok"] is True
    assert states["jax"]["found"] == jax.__version__
    assert states["devices"]["found"].startswith(jax.devices()[0].platform)
    assert "usable of" in states["cores"]["found"]
    assert "ok   python" in run("doctor").stdout


@pytest.mark.parametrize("version", ["0.10.0", "0.8.0"])
def test_doctor_knows_bad_versions(monkeypatch, version):
    real = doctor_module.metadata.version

    def told(name):
        return version if name == "jaxlib" else real(name)

    monkeypatch.setattr(doctor_module.metadata, "version", told)
    assert f"bad  jaxlib: {version}: " in run("doctor", code=1).stdout


def test_doctor_names_what_is_missing(monkeypatch):
    find = importlib.util.find_spec

    def without(name):
        return None if name == "matplotlib" else find(name)

    monkeypatch.setattr(doctor_module.importlib.util, "find_spec", without)
    assert "missing plot" in run("doctor").stdout.replace(", export", "")
    monkeypatch.setattr(jax, "devices", lambda: 1 / 0)
    assert "bad  devices: division by zero" in run("doctor", code=1).stdout


def test_shell_completion(monkeypatch):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert "complete" in run("--show-completion", "bash").stdout
