"""`--json` is strict JSON whatever happens: null where there is no number, and counts."""

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

import otflow.certificates
import otflow.estimator.fitting
from otflow import OTFlow
from otflow.cli.app import app
from otflow.model.tensorfile import write_tensors
from otflow.studies.runner import run_study
from otflow.support.statistics import Z95
from tests.cli.test_overwriting import commands
from tests.fakes import SMALL, no_plan, no_training, untrained
from tests.report.documents import CERTIFICATE
from tests.studies.fakes import Ladder
from tests.support.test_jsontext import strictly

X = np.random.default_rng(0).gamma(2.0, size=(60, 1))
BOUNDED = SMALL | {"bounds": {0: (0, None)}}
BAD = (math.nan, math.inf, -math.inf)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        no_training(patch)
        OTFlow(**BOUNDED).fit(X).save(folder / "m.otflow")
        OTFlow(**SMALL).fit(X).save(folder / "plain.otflow")
    for name, rows in {"all": X, "some": np.array([[1.0], [-1.0], [2.0]]), "none": -X}.items():
        np.save(folder / f"{name}.npy", rows)
    run_study(Ladder(1), folder / "s")
    write_tensors(
        folder / "odd.otflow",
        "otflow",
        {"format_version": 2, "settings": dict(enumerate(BAD)), "training": {"n_iter": math.nan}},
        {},
        allow_nan=True,
    )
    return folder


@pytest.fixture
def here(made, monkeypatch):
    """A folder in which no number of a certificate, a history or a study is finite."""

    def nowhere(*args, **kwargs):
        found = untrained(*args, **kwargs)
        history = {name: [0.0 if name == "iteration" else math.nan] for name in found.history}
        return type(found)(**vars(found) | {"history": history})

    monkeypatch.chdir(made)
    monkeypatch.setattr(otflow.estimator.fitting, "train", nowhere)
    monkeypatch.setattr(OTFlow, "sample_pieces", lambda *given, **options: [np.full((3, 1), 1.0)])
    monkeypatch.setattr(otflow.certificates, "certify_model", lambda *a, **k: CERTIFICATE)
    monkeypatch.setattr(otflow.Between, "certify", lambda *a, **k: CERTIFICATE)
    no_plan(monkeypatch)
    monkeypatch.setattr("otflow.studies.presets.make_study", lambda *given: Ladder(1))
    monkeypatch.setattr("otflow.report.study_report.draw_study", lambda *given: None)
    return made


def printed(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in (*words, "--json")])
    assert result.exit_code == code, result.output
    assert result.stdout.count("\n") == 1
    return strictly(result.stdout)


HARD = {
    "between": "all.npy some.npy --out b.npy --certify",
    "certify": "m.otflow all.npy",
    "doctor": "",
    "export": "plain.otflow --out p",
    "fit": "all.npy --out f.otflow --width 8",
    "info": "odd.otflow",
    "report": "s --out r.html",
    "sample": "m.otflow --out d.csv -n 3",
    "score": "m.otflow some.npy",
    "study all": "--out all",
    "study alpha": "--out alpha",
    "study density": "--out density",
    "study jko": "--out jko",
    "study growth": "--out growth",
    "study samples": "--out samples",
    "study show": "s",
    "study steps": "--out steps",
    "study width": "--out width",
}


@pytest.mark.parametrize("command", HARD)
def test_every_command(here, command):
    if command == "export":
        pytest.importorskip("flatbuffers")
    assert printed(*command.split(), *HARD[command].split())


def test_those_are_all_the_commands():
    assert {n for n, given in commands() if "as_json" in {p.name for p in given}} == set(HARD)


def test_score_counts_the_rows_without_a_density(here):
    """Against the library: -inf outside the bounds."""
    whole, some, none = (printed("score", "m.otflow", f"{n}.npy") for n in ("all", "some", "none"))
    scores = otflow.load(here / "m.otflow").score_samples([[1.0], [2.0]])
    half = Z95 * scores.std(ddof=1) / math.sqrt(2)
    assert whole["without_density"] == 0
    assert whole["log_prob"] == whole["log_prob_of_others"]
    assert whole["interval_95"] == whole["interval_95_of_others"]
    assert (some["rows"], some["without_density"], some["log_prob"]) == (3, 1, None)
    assert some["interval_95"] is None
    assert some["log_prob_of_others"] == pytest.approx(scores.mean(), rel=1e-6)
    ends = [scores.mean() - half, scores.mean() + half]
    assert some["interval_95_of_others"] == pytest.approx(ends, rel=1e-6)
    assert (none["rows"], none["without_density"], none["log_prob_of_others"]) == (60, 60, None)


def test_score_says_so_in_words(here):
    told = {
        n: CliRunner().invoke(app, ["score", "m.otflow", f"{n}.npy"]).stdout
        for n in ("all", "some", "none")
    }
    assert told["all"].startswith("mean log-density of 60 rows: ")
    assert told["all"].endswith("nats (95 %)\n")
    some = otflow.load(here / "m.otflow").score_samples([[1.0], [2.0]]).mean()
    lacking = "1 of 3 rows have no density: the mean log-density of all is -inf; that of the others"
    assert told["some"].startswith(f"{lacking} is {some:.4f} +- ")
    lacking = "60 of 60 rows have no density: the mean log-density of all is -inf"
    assert told["none"] == f"{lacking}\n"
    assert "nan" not in "".join(told.values())


def test_files_of_the_library(here):
    """Certificates and summaries of studies, as they are written by hand."""
    for document in (CERTIFICATE.to_dict(), run_study(Ladder(1)).to_dict()):
        assert strictly(json.dumps(document)) == document
