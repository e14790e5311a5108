"""The speed benchmark: each contestant's density is that of its sampler; the parts' arithmetic."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # its modules are scripts, no part of the package
os.environ["OTFLOW_BENCH_THREADS"] = "1"  # two threads crawl where the cores are shared

import speed  # noqa: E402
from peers.base import Setup, batches  # noqa: E402
from peers.registry import Entry, entries  # noqa: E402
from timing import growth, nll, step  # noqa: E402
from timing.data import SETS, Shape, write_set, write_shape  # noqa: E402
from timing.field import Field  # noqa: E402
from timing.flops import step_flops  # noqa: E402
from timing.table import summary, table  # noqa: E402

NAMES = ("conforming-1", "plain-torch", "zuko-cnf", "ffjord", "flowjax-nsf", "torchcfm")
TINY = Setup(width=4, n_steps=2, batch=32, total_steps=10)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((64, 2)).astype(np.float32)


@pytest.mark.parametrize("name", [*NAMES, pytest.param("rk4", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_density_is_that_of_the_sampler(name: str, rows) -> None:
    (entry,) = entries(name)
    if entry.missing():
        pytest.skip(entry.missing())
    contestant = entry.create()
    contestant.build(rows, TINY)
    contestant.step()
    # log p(G(z)) = log N(z) - log |det dG/dz|, the Jacobian by central differences: a solver's
    # tolerance of 1e-9 over the difference is near 5e-5.
    z = np.random.default_rng(1).standard_normal((6, 2))
    shifted = np.concatenate([z + s * e for e in np.eye(2) for s in (2e-5, -2e-5)] + [z])
    up_0, down_0, up_1, down_1, x = np.split(contestant.sample(shifted, tight=True), 5)
    jacobian = np.stack([up_0 - down_0, up_1 - down_1], axis=2) / 4e-5
    expected = -0.5 * (z**2).sum(axis=1) - np.log(2 * np.pi)
    expected = expected - np.linalg.slogdet(jacobian).logabsdet
    np.testing.assert_allclose(contestant.log_prob(x, tight=True), expected, atol=2e-4)
    rough = contestant.log_prob(x.astype(np.float32))
    np.testing.assert_allclose(rough, expected, atol=2e-2)


@pytest.fixture(scope="module")
def field():
    """A contestant, one that fails and one that is not installed, after three steps."""
    pytest.importorskip("torch")
    broken = Entry("broken", "plain_torch", "PlainTorch", (), {"no_such_option": 1})
    absent = Entry("absent", "plain_torch", "PlainTorch", ("no_such_package",))
    with Field((*entries("plain-torch"), broken, absent), "test") as field:
        yield field


def test_field_reports_who_fails_and_goes_on(field, tmp_path) -> None:
    field.build(write_shape(3, 50, tmp_path), TINY)
    for turn in field.turns():
        with turn:
            turn.row["seconds"] = turn.call("step", calls=3)["seconds"]
            turn.row["peak"] = turn.call("memory")["peak_mb"]
            turn.row["error"] = turn.call("accuracy", kind="score", rows=10, level=16)["mean"]
            turn.row["rough"] = turn.call("accuracy", kind="score", rows=10, level=1)["mean"]
            turn.row["rate"] = turn.call("throughput", kind="sample", rows=10)["seconds"]
            turn.row["steps"] = turn.call("train", seconds=1e9)["steps"]
            turn.row["nll"] = turn.call("nll", rows=20)["nll"]
    assert field.rows["absent"]["status"] == "not installed: no_such_package"
    assert field.rows["broken"]["status"].startswith("failed: TypeError")
    row = field.rows["plain-torch"]
    assert row["status"] == "ok"
    assert len(row["seconds"]) == 3
    assert row["steps"] == TINY.total_steps
    assert row["error"] < row["rough"]
    assert row["peak"] > 0
    assert np.isfinite(row["nll"])


def test_a_command_that_fails_ends_the_turn_and_the_contestant(field) -> None:
    for turn in field.turns():
        with turn:
            turn.call("nonsense")
            pytest.fail("the turn went on")
    assert field.rows["plain-torch"]["status"].startswith("failed: AttributeError")
    assert not field.workers


def test_flops_are_those_that_torch_counts() -> None:
    pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    contestant = entries("plain-torch")[0].create()
    shape = Shape(d=6, width=64, n=32, n_steps=3)
    x = np.random.default_rng(0).standard_normal((shape.n, shape.d)).astype(np.float32)
    contestant.build(x, shape.setup)
    with FlopCounterMode(display=False) as counter:
        contestant.step()
    counted = step_flops("plain-torch", shape.d, shape.width, shape.n, shape.n_steps)
    # Torch leaves out what no gradient needs (the first stage's input, the last position).
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_flops_of_the_schemes_by_hand() -> None:
    # d 1, width 1, depth 1: G = 8 + 4 + 16 = 28, Laplacian 30, Hessian 34.
    assert step_flops("rk4", 1, 1, 1, 2) == 3 * (5 * 30 + 6 * 28)
    assert step_flops("rk4-stages", 1, 1, 1, 2) == 3 * 8 * 30
    assert step_flops("conforming", 1, 1, 4, 2) == 3 * 4 * 2.5 * 34


def test_crossing_is_linear_between_points() -> None:
    curve = [[1.0, 5.0], [2.0, 3.0], [4.0, 4.0], [6.0, 1.0]]
    assert nll.crossing(curve, 4.0) == 1.5
    assert nll.crossing(curve, 5.0) == 1.0
    assert nll.crossing(curve, 2.0) == pytest.approx(4 + 2 * 2 / 3)
    assert nll.crossing(curve, 0.5) is None


def test_exponent_is_that_of_a_power_law_in_the_upper_half() -> None:
    sizes = [1, 2, 4, 8, 16]
    assert growth.exponent(sizes, [9.0, 9.0, 16.0, 64.0, 256.0]) == pytest.approx(2.0)


def test_batches_use_every_row_equally_often() -> None:
    stream = batches(10, 4, 0)
    found = np.concatenate([next(stream) for _ in range(5)])
    np.testing.assert_array_equal(np.bincount(found), 2)
    np.testing.assert_array_equal(next(batches(3, 4, 0)), np.arange(3))


def test_sets_are_standardised_and_their_scale_kept(tmp_path) -> None:
    for name in SETS:
        path = write_set(name, tmp_path, 500)
        if path is None:
            assert name == "gas_turbine"
            continue
        with np.load(path) as archive:
            train, held_out, scale = (archive[k] for k in ("train", "held_out", "log_scale"))
        np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(train.std(axis=0), 1, atol=1e-4)
        assert not set(map(tuple, train)) & set(map(tuple, held_out))
        assert np.isfinite(scale)


@pytest.fixture
def records() -> dict:
    row = {"contestant": "rk4", "step_ms": 1234.5, "peak_mb": 3.0, "status": "ok"}
    gone = {"contestant": "ffjord", "status": "not installed: torchdiffeq"}
    found = {"machine": "m", "quick": True, "minutes": 1.0, "rows": [row, gone]}
    curve = {"contestant": "rk4", "steps": 5, "to_target_s": 2.0, "status": "ok"}
    return {f"step {step.QUICK}": found, "nll moons": dict(found, rows=[curve])}


def test_tables_hide_nobody(records) -> None:
    rows = records[f"step {step.QUICK}"]["rows"]
    text = table(rows, step.COLUMNS)
    assert "1,234" in text
    assert "not installed: torchdiffeq" in text
    text = summary({name: record["rows"] for name, record in records.items()})
    assert text.splitlines()[0].count("|") == 6
    assert "| ffjord | not installed: torchdiffeq |" in text


def test_saved_rows_are_shown_without_measuring(records, tmp_path, monkeypatch, capsys) -> None:
    path = tmp_path / "speed.json"
    speed.save(str(path), records)
    assert json.loads(path.read_text()) == records
    monkeypatch.setattr(sys, "argv", ["speed.py", "--parts", "--json", str(path)])
    speed.main()
    printed = capsys.readouterr().out
    assert "## nll moons (quick)" in printed
    assert "| rk4 | 1,234 | 3 |" in printed


def test_setup_fields_survive_the_trip_to_a_process() -> None:
    assert Setup(**json.loads(json.dumps(dataclasses.asdict(TINY)))) == TINY
