"""Training logs: every row, in the three formats, and what happens when one cannot be written."""

import json
import math
import sys
import types
from pathlib import Path

import pytest

from otflow.training import logs

ROWS = [
    {"phase": "first-order", "iteration": 0, "objective": 3.5, "train_nll": math.nan},
    {"phase": "first-order", "iteration": 25, "objective": 2.25, "train_nll": 1.5},
    {"phase": "natural", "iteration": 10, "objective": math.inf, "val_nll": 0.125},
]


def test_json_lines(tmp_path):
    path = tmp_path / "run.jsonl"
    with logs.json_lines(path) as log:
        for i, row in enumerate(ROWS):
            log(row)
            assert path.read_text().count("\n") == i + 1  # flushed, for those who watch
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found[1] == ROWS[1]
    assert found[0] == ROWS[0] | {"train_nll": None}
    assert found[2] == ROWS[2] | {"objective": None}


def test_json_lines_go_on_or_start_again(tmp_path):
    path = tmp_path / "run.jsonl"
    for append, lines in ((False, 1), (True, 2), (False, 1)):
        with logs.json_lines(path, append) as log:
            log(ROWS[1])
        assert len(path.read_text().splitlines()) == lines


def test_a_full_disk_costs_a_warning(monkeypatch):
    """/dev/full is a disk without space."""
    monkeypatch.setattr(logs, "check_writable", Path)
    with pytest.warns(UserWarning, match="/dev/full lacks a row of the log: .*No space"):  # noqa: SIM117
        with logs.json_lines("/dev/full") as log:
            log(ROWS[0])


def test_a_log_that_cannot_be_written(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="the folder"),
        logs.json_lines(tmp_path / "a" / "b"),
    ):
        pass


def test_tensorboard(tmp_path):
    """The file is TensorBoard's own format: read back by its own protocol buffers."""
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    with logs.tensorboard(tmp_path) as log:
        for row in ROWS:
            log(row)
    (file,) = tmp_path.iterdir()
    content, found = file.read_bytes(), {}
    while content:
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        for value in event.summary.value:
            found[value.tag, event.step] = value.simple_value
        content = content[16 + length :]
    assert found == {
        ("first-order/objective", 0): 3.5,
        ("first-order/objective", 25): 2.25,
        ("first-order/train_nll", 25): 1.5,
        ("natural/val_nll", 10): 0.125,
    }


class Mlflow(types.ModuleType):
    """What of MLflow is called."""

    def __init__(self, active):
        super().__init__("mlflow")
        self.active, self.told = active, []

    def active_run(self):
        return self.active

    def start_run(self):
        self.told.append("start")
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.told.append("end")

    def log_params(self, settings):
        self.told.append(settings)

    def log_metrics(self, metrics, step):
        self.told.append((step, metrics))


@pytest.mark.parametrize("active", [None, "a run"])
def test_mlflow(monkeypatch, active):
    """In the active run, or in one of its own that is ended."""
    stub = Mlflow(active)
    monkeypatch.setitem(sys.modules, "mlflow", stub)
    with logs.mlflow({"alpha": 3.0}) as log:
        log(ROWS[1])
    told = [{"alpha": 3.0}, (25, {"first-order/objective": 2.25, "first-order/train_nll": 1.5})]
    assert stub.told == (told if active else ["start", *told, "end"])


@pytest.mark.parametrize(
    ("module", "extra", "log"),
    [("mlflow", "mlflow", logs.mlflow), ("tensorboardX", "log", lambda: logs.tensorboard("x"))],
)
def test_missing_packages_name_their_extra(monkeypatch, module, extra, log):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"otflow\[{extra}\]"), log():
        pass


def test_a_run_that_is_refused_leaves_the_old_log(tmp_path):
    (tmp_path / "run.jsonl").write_text("old")
    with logs.json_lines(tmp_path / "run.jsonl"):
        pass
    assert (tmp_path / "run.jsonl").read_text() == "old"
