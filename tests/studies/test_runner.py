"""Units run once, in order, whole; what fails is recorded; what is interrupted goes on."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from otflow.flow.flow import Flow
from otflow.schemes import Conforming
from otflow.studies.runner import AbstractStudy, Outcome, Plan, Unit, load_study, run_study
from otflow.studies.store import Store
from tests.fakes import Translation
from tests.parallel.forks import Forks
from tests.studies.fakes import SEEDS, Ladder, exact_flow, name, numbers


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "study"


def cells(folder):
    """Saved cells by id, without the one field that is measured."""
    with Store.open(folder) as store:
        return {c.id: dataclasses.replace(c, seconds=0.0) for c in store.cells()}


def computed(log):
    return [line.split()[0] for line in log.read_text().splitlines()]


class Once:
    """Raises in the unit of one alpha, the first time only."""

    def __init__(self, alpha, error):
        self.alpha, self.error, self.left = alpha, error, 1

    def __call__(self, alpha):
        if alpha == self.alpha and self.left:
            self.left = 0
            raise self.error


class TestOrder:
    def test_units_follow_those_they_need(self, folder, tmp_path):
        log = tmp_path / "log"
        result = run_study(Ladder(4, log=log), folder)
        assert computed(log) == ["u1", "u2", "u4", "u8"]  # listed the other way round
        found = cells(folder)
        assert set(found) == {name(2.0**i, s) for i in range(4) for s in SEEDS}
        for i in range(1, 4):
            values = found[name(2.0**i, 1)].values
            assert values["started_from"] == numbers(2.0 ** (i - 1), 1)["transport"]
        assert (result.cells, result.planned, result.failed) == (8, 8, [])
        assert [row["alpha"] for row in result.rows] == [1, 2, 4, 8]
        assert result.settings == {"kind": "alpha", "problem": "data", "dim": 1, "n": 4}

    def test_progress(self, folder):
        heard = []
        run_study(Ladder(2), folder, progress=lambda *args: heard.append(args))
        per_unit = [(0, "u1"), (2, "u2")]
        assert heard == [
            *((done, 4, unit, steps) for done, unit in per_unit for steps in (0, 1, 2)),
            (4, 4, "", 0),
        ]

    def test_without_a_folder_nothing_is_left(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        assert run_study(Ladder(2)).cells == 4
        assert list(tmp_path.iterdir()) == []

    def test_load_study_is_the_summary_without_the_plan(self, folder):
        result = run_study(Ladder(3), folder)
        assert load_study(folder) == dataclasses.replace(result, planned=None)


class TestFailure:
    def test_an_error_is_recorded_and_dependents_say_what_they_miss(self, folder):
        study = Ladder(3, before=Once(2.0, RuntimeError("no memory")))
        result = run_study(study, folder)
        assert (result.cells, result.planned) == (6, 6)
        assert dict(result.failed) == {
            **{name(2.0, s): "RuntimeError: no memory" for s in SEEDS},
            **{name(4.0, s): f"LookupError: needs {name(2.0, 0)}, which failed" for s in SEEDS},
        }
        assert [row["alpha"] for row in result.rows] == [1.0]

    def test_one_bad_cell_leaves_its_unit(self, folder):
        result = run_study(Ladder(2, bad=((2.0, 1),)), folder)
        assert result.failed == [(name(2.0, 1), "made to fail")]
        assert [row["replicates"] for row in result.rows] == [2, 1]

    def test_failed_cells_are_kept_until_retried(self, folder, tmp_path):
        log = tmp_path / "log"
        study = Ladder(3, before=Once(2.0, RuntimeError("no memory")), log=log)
        first = run_study(study, folder)
        assert run_study(study, folder, resume=True) == first
        assert computed(log) == ["u1", "u2", "u4"]
        again = run_study(study, folder, resume=True, retry_failed=True)
        assert again.failed == []
        assert computed(log) == ["u1", "u2", "u4", "u2", "u4"]
        assert again == run_study(Ladder(3), tmp_path / "other")

    def test_too_few_outcomes_are_an_error(self, folder):
        class Short(Ladder):
            def units(self):
                unit = super().units()[-1]
                return [dataclasses.replace(unit, compute=lambda saved, report: [])]

        result = run_study(Short(1), folder)
        assert [error for _, error in result.failed] == [
            "RuntimeError: expected 2 outcomes; got 0"
        ] * 2


@dataclasses.dataclass(frozen=True)
class Weights(AbstractStudy):
    """A flow that is saved, and one read back; the first shift of the other is `bad`."""

    bad: float = 2.0
    kind = "alpha"

    def settings(self):
        return {"problem": "data", "dim": 2}

    def units(self):
        plans = tuple(Plan(name(1.0, s), {"alpha": 1.0, "seed": s}, s) for s in SEEDS)
        last = (Plan(name(2.0, 0), {"alpha": 2.0, "seed": 0}, 0),)
        return [Unit("a", plans, self._make), Unit("b", last, self._read, ("a",))]

    def _make(self, saved, report):
        good = exact_flow(3.0)
        shift = jnp.array([self.bad, 0.0])
        bad = Flow(Translation(shift), scheme=Conforming(1))
        return [Outcome(numbers(1.0, 0), good), Outcome(numbers(1.0, 1), bad)]

    def _read(self, saved, report):
        flow = saved.flow(name(1.0, 0))
        moved = flow.forward(np.array([[0.3, -0.4]]))
        return [Outcome(numbers(2.0, 0) | {"moved": float(moved[0, 0])})]


class TestFlows:
    def test_weights_come_back_exactly(self, folder):
        run_study(Weights(bad=np.nan), folder)
        found = cells(folder)
        assert found[name(1.0, 0)].weights is not None
        expected = float(exact_flow(3.0).forward(np.array([[0.3, -0.4]]))[0, 0])
        assert found[name(2.0, 0)].values["moved"] == expected

    def test_a_flow_with_parameters_that_are_not_finite_is_a_failed_cell(self, folder):
        result = run_study(Weights(bad=np.nan), folder)
        assert result.failed == [(name(1.0, 1), "a trained parameter is not finite")]
        assert cells(folder)[name(1.0, 1)].weights is None


class TestBudget:
    def test_no_unit_starts_after_the_budget(self, folder, tmp_path, monkeypatch):
        clock = [0.0]
        monkeypatch.setattr("time.monotonic", lambda: clock[0])

        def takes_a_minute(alpha):
            clock[0] += 60

        study = Ladder(4, before=takes_a_minute)
        partial = run_study(study, folder, budget_minutes=1.5)
        assert (partial.cells, partial.planned) == (4, 8)
        assert partial.failed == []
        whole = run_study(study, folder, resume=True)
        assert whole == run_study(Ladder(4), tmp_path / "other")
        assert cells(folder)[name(1.0, 0)].seconds == 0.0

    @pytest.mark.parametrize("budget", [0, -1.0, float("nan")])
    def test_refused(self, folder, budget):
        with pytest.raises(ValueError, match=r"^budget_minutes: expected a finite number > 0"):
            run_study(Ladder(), folder, budget_minutes=budget)
        assert not folder.exists()


class TestResume:
    def test_other_settings_are_refused(self, folder):
        run_study(Ladder(2), folder)
        with pytest.raises(ValueError, match=r"^n: expected 2 as in .*; got 3"):
            run_study(Ladder(3), folder, resume=True)

    def test_a_study_is_not_overwritten(self, folder):
        run_study(Ladder(2), folder)
        with pytest.raises(FileExistsError, match="already holds a study"):
            run_study(Ladder(2), folder)

    def test_nothing_to_resume(self, folder):
        with pytest.raises(FileNotFoundError, match="holds no study"):
            run_study(Ladder(2), folder, resume=True)

    @pytest.mark.parametrize("alpha", [1.0, 2.0, 4.0])
    def test_an_interrupt_leaves_whole_units(self, folder, tmp_path, alpha):
        """Ctrl-C in every unit in turn; the table afterwards is that of an undisturbed run."""
        log = tmp_path / "log"
        study = Ladder(3, before=Once(alpha, KeyboardInterrupt()), log=log)
        with pytest.raises(KeyboardInterrupt):
            run_study(study, folder)
        assert len(cells(folder)) == 2 * np.log2(alpha)
        result = run_study(study, folder, resume=True)
        other = tmp_path / "other"
        assert result == run_study(Ladder(3), other)
        assert cells(folder) == cells(other)
        assert sorted(computed(log)) == sorted(["u1", "u2", "u4", f"u{alpha:g}"])

    def test_a_death_while_saving_loses_the_unit_only(self, folder, tmp_path, monkeypatch):
        save = Store.save_unit

        def dies(self, unit, cells, writers=None):
            if unit == "u2":
                raise KeyboardInterrupt
            return save(self, unit, cells, writers)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "save_unit", dies)
            with pytest.raises(KeyboardInterrupt):
                run_study(Ladder(3), folder)
        assert set(cells(folder)) == {name(1.0, s) for s in SEEDS}
        assert run_study(Ladder(3), folder, resume=True) == run_study(Ladder(3), tmp_path / "o")


@pytest.mark.slow
def test_two_processes_share_a_folder(folder, tmp_path):
    """Every unit is computed by one of them, both see the whole table."""
    log, size = tmp_path / "log", 12
    code = (
        "import sys; from pathlib import Path\n"
        "from otflow.studies.runner import run_study\n"
        "from tests.studies.fakes import Company, Ladder\n"
        "folder, log = map(Path, sys.argv[1:])\n"
        f"study = Ladder({size}, before=Company(log), log=log, chained=False)\n"
        "result = run_study(study, folder, resume=True)\n"
        "print(result.cells, result.failed)"
    )
    study = Ladder(size)
    Store.create(folder, {"kind": study.kind, **study.settings()}).close()
    with Forks("import tests.studies.fakes, otflow.studies.runner", tmp_path) as forks:
        both = forks.run(code, str(folder), str(log), each=[{}, {}])
    for process in both:
        assert process.code == 0, process.err
        assert process.out == f"{2 * size} []\n"
    assert sorted(computed(log)) == sorted(f"u{2**i}" for i in range(size))
    assert load_study(folder).rows == run_study(study, tmp_path / "other").rows
