"""`otflow study`: from options to a study, from a store to tables, and errors in one line."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from otflow.cli.app import app
from otflow.data.tables import Table, write_table
from otflow.studies.presets import KINDS
from otflow.studies.problems import DataProblem, ExactProblem
from otflow.studies.runner import load_study, run_study
from tests.studies.fakes import Ladder


def run(*args, code=0):
    result = CliRunner().invoke(app, ["study", *(str(a) for a in args)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def asked(monkeypatch):
    """Studies are ladders that do not train; what `make_study` was asked."""
    calls, study = [], {"study": Ladder(2)}

    def make(kind, problem, seeds, demo):
        calls.append((kind, problem, seeds, demo))
        return study["study"]

    monkeypatch.setattr("otflow.studies.presets.make_study", make)
    calls.append(study)
    return calls


@pytest.fixture
def pictures(monkeypatch):
    """Nothing is drawn; what would have been, and where."""
    drawn = []
    monkeypatch.setattr("otflow.report.study_report.draw_study", lambda *given: drawn.append(given))
    return drawn


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "study"


def one_line(result):
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output
    return result.stderr


class TestHelp:
    def test_commands(self):
        told = run("--help").stdout
        for command in (*KINDS, "all", "show"):
            assert command in told

    @pytest.mark.parametrize("command", KINDS)
    def test_options(self, command):
        told = run(command, "--help").stdout
        for option in ("--problem", "--dim", "--out", "--resume", "--seeds", "--budget", "--json"):
            assert option in told
        assert ("Your own table" in told) == (command in ("alpha", "samples"))


def test_a_study_is_drawn(folder, asked):
    run("alpha", "--out", folder)
    assert (folder / "alpha.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("pictures")
class TestAll:
    def test_every_study_and_one_page(self, folder, asked):
        told = run("all", "--out", folder, "--dim", 3, "--seeds", 4)
        assert [call[0] for call in asked[1:]] == list(KINDS)
        assert {path.name for path in folder.iterdir()} == {*KINDS, "theory.html"}
        assert told.stdout.count("transport increases with alpha") == len(KINDS)

    def test_resume_json_and_budget(self, folder, asked):
        run("all", "--out", folder, "--budget", 1e-9)
        found = json.loads(run("all", "--out", folder, "--resume", "--json").stdout)
        assert found["page"] == str(folder / "theory.html")
        assert list(found["studies"]) == list(KINDS)
        assert all(study["cells"] == study["planned"] == 4 for study in found["studies"].values())

    def test_what_is_there_is_refused(self, folder, asked):
        (folder / "width").mkdir(parents=True)
        told = one_line(run("all", "--out", folder, code=2))
        assert "holds width: go on with --resume" in told

    def test_a_budget_is_checked_before_anything_is_written(self, folder, asked):
        told = one_line(run("all", "--out", folder, "--budget", -1, code=2))
        assert "budget: expected a finite number > 0; got -1" in told
        assert not folder.exists()


@pytest.mark.usefixtures("pictures")
class TestRun:
    @pytest.mark.parametrize("kind", KINDS)
    def test_options_reach_the_study(self, folder, asked, pictures, kind):
        told = run(kind, "--out", folder, "--problem", "gaussian", "--dim", 3, "--seeds", 4)
        _, (found, problem, seeds, demo) = asked
        assert (found, seeds, demo) == (kind, 4, False)
        assert type(problem) is ExactProblem
        assert problem.settings() == {"problem": "gaussian", "dim": 3}
        assert "transport increases with alpha" in told.stdout
        assert "holds" in told.stdout
        ((result, path),) = pictures
        assert result.to_dict() == load_study(folder).to_dict() | {"planned": 4}
        assert path == folder / f"{kind}.png"
        assert result.cells == 4

    def test_data_are_standardised(self, tmp_path, folder, asked):
        rows = 5 + 3 * np.random.default_rng(0).standard_normal((40, 2))
        write_table(tmp_path / "t.csv", Table(rows, ("a", "b")))
        run("alpha", "--out", folder, "--data", tmp_path / "t.csv", "--demo")
        _, (_, problem, seeds, demo) = asked
        assert (seeds, demo) == (None, True)
        assert type(problem) is DataProblem
        x = np.concatenate([problem.rows, problem.population])
        np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(x.std(axis=0), 1, atol=1e-6)

    def test_json(self, folder, asked):
        found = json.loads(run("alpha", "--out", folder, "--json").stdout)
        assert found == load_study(folder).to_dict() | {"planned": 4}
        assert found["rows"][1]["transport"] == pytest.approx(1 - 1 / 6 + 5e-5)

    def test_resume_and_budget(self, folder, asked, pictures):
        told = run("alpha", "--out", folder, "--budget", 1e-9).stdout
        assert "partial: 0 of 4 cells; go on with --resume" in told
        assert pictures == []
        told = run("alpha", "--out", folder, "--resume").stdout
        assert "partial" not in told

    def test_failed_cells_are_shown_as_they_are_and_retried(self, folder, asked):
        """Brackets in a message are no markup."""
        message, broken = "expected [bold] or [/n]; got [a, b]", [True]

        def fails(alpha):
            if alpha == 2 and broken:
                raise ValueError(message)

        asked[0]["study"] = Ladder(2, before=fails)
        told = run("alpha", "--out", folder).stdout
        assert f"failed: alpha=2,seed=0: ValueError: {message}" in told
        broken.clear()
        assert "failed" in run("alpha", "--out", folder, "--resume").stdout
        assert "failed" not in run("alpha", "--out", folder, "--resume", "--retry-failed").stdout

    def test_an_interrupt(self, folder, asked):
        def interrupts(alpha):
            if alpha == 2:
                raise KeyboardInterrupt

        asked[0]["study"] = Ladder(2, before=interrupts)
        result = run("alpha", "--out", folder, code=130)
        assert "interrupted; finished cells are in" in one_line(result)
        assert "--resume" in result.stderr
        asked[0]["study"] = Ladder(2)
        assert "partial" not in run("alpha", "--out", folder, "--resume").stdout


@pytest.mark.usefixtures("pictures")
class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--problem", "nope"), "name: expected one of"),
            (("--problem", "mixture"), "dim: expected 1 for the problem 'mixture'; got 2"),
            (("--dim", 0), "dim: expected an integer >= 1; got 0"),
            (("--seeds", 0), "seeds: expected an integer >= 1; got 0"),
            (("--budget", -1), "budget_minutes: expected a finite number > 0; got -1"),
            (("--resume",), "holds no study"),
            (("--data", "missing.csv"), "missing.csv"),
            (("--backend", "unknown"), "backend: expected local or ray; got 'unknown'"),
            (("--address", "127.0.0.1:6379"), "expected with --backend ray only"),
            (("--cpus", 1), "expected with --backend ray only"),
            (("--backend", "ray", "--cpus", 0), "cpus: expected an integer >= 1; got 0"),
            (("--backend", "ray", "--address", "nowhere"), "address: expected 'host:port'"),
        ],
    )
    def test_in_one_line(self, folder, options, message):
        assert message in one_line(run("alpha", "--out", folder, *options, code=2))
        assert not (folder / "study.sqlite").exists()

    def test_no_cluster_answers(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        began = time.monotonic()
        result = run("alpha", "--out", folder, "--backend", "ray", "--address", address, code=2)
        assert f"no Ray cluster answers at {address}" in one_line(result)
        assert time.monotonic() - began < 30
        assert not folder.exists()

    def test_too_few_rows(self, tmp_path, folder):
        write_table(tmp_path / "t.csv", Table(np.arange(14.0).reshape(7, 2), ("a", "b")))
        result = run("alpha", "--out", folder, "--data", tmp_path / "t.csv", code=2)
        assert "expected at least 8 rows; got 7" in one_line(result)

    def test_a_study_is_not_overwritten(self, folder, asked):
        run("alpha", "--out", folder)
        assert "already holds a study" in one_line(run("alpha", "--out", folder, code=2))
        assert load_study(folder).cells == 4

    def test_other_settings(self, folder, asked):
        run("alpha", "--out", folder)
        asked[0]["study"] = Ladder(3)
        result = run("alpha", "--out", folder, "--resume", code=2)
        assert "n: expected 2 as in" in one_line(result)


class TestShow:
    def test_tables(self, folder):
        run_study(Ladder(3, bad=((4.0, 0),)), folder)
        told = run("show", folder).stdout
        assert "alpha study, data, d = 1" in told
        for statement in load_study(folder).statements:
            assert statement.claim in told
            assert statement.verdict in told
        assert "failed: alpha=4,seed=0: made to fail" in told
        assert "0.66672" in told  # the transport at alpha = 1

    def test_json(self, folder):
        run_study(Ladder(3), folder)
        found = json.loads(run("show", folder, "--json").stdout)
        assert found == load_study(folder).to_dict()
        assert found["planned"] is None
        assert [row["alpha"] for row in found["rows"]] == [1, 2, 4]

    def test_missing(self, folder):
        assert "holds no study" in one_line(run("show", folder, code=2))
        folder.mkdir()
        assert "holds no study" in one_line(run("show", folder, code=2))

    def test_damaged(self, folder):
        run_study(Ladder(1), folder)
        (folder / "study.sqlite").write_bytes(b"no database" * 1000)
        assert "not a readable study" in one_line(run("show", folder, code=2))


REAL = """
import sys
from otflow.cli.app import app
from otflow.studies import presets
from otflow.studies.members import Network
from otflow.training.ensemble import EnsembleConfig

presets._DEMO["alpha"] |= {
    "alphas": (2.0,),
    "network": Network(2),
    "config": EnsembleConfig(first_order=1, first_order_rows=8, natural=0),
    "evaluation": 1000,
}
app(["study", "alpha", "--demo", "--problem", "gaussian", "--dim", "1", "--seeds", "2",
     "--out", sys.argv[1], "--json", *sys.argv[2:]])
"""


def real_study(folder, *more):
    """In a process of its own: the devices are chosen before anything else touches them."""
    command = [sys.executable, "-c", REAL, str(folder), *more]
    env = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs otflow[ray]")
def test_a_real_study_on_ray(folder, tmp_path):
    found = real_study(folder, "--backend", "ray", "--cpus", "1")
    local = real_study(tmp_path / "local")
    assert found["failed"] == []
    assert found["rows"] == local["rows"]


@pytest.mark.slow
def test_a_real_study_on_all_cores(folder):
    found = real_study(folder)
    assert found["failed"] == []
    assert (found["cells"], found["planned"]) == (3, 3)
    (row,) = found["rows"]
    assert row["objective"] == pytest.approx(row["exact_objective"], rel=0.2)
    assert found == load_study(folder).to_dict() | {"planned": 3}
    assert (folder / "alpha.png").is_file()
