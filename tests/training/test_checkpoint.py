"""Checkpoints: a run that was stopped anywhere goes on to the same bits; no other run does."""

import os
import signal
import threading
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import otflow.training.loop as loop_module
from otflow import OTFlow
from otflow.flow.objective import Costs
from otflow.model import tensorfile
from otflow.targets import GaussianMixture, StandardNormal
from otflow.training import (
    NaturalConfig,
    TrainingConfig,
    TrainingResult,
    Watch,
    polish,
    train,
)
from otflow.training.block import StepLog
from tests.fakes import SMALL, Translation, no_training
from tests.training.glide import Glide
from tests.training.test_loop import Biased

X = np.random.default_rng(0).standard_normal((80, 2)) ** 3
SETTINGS = SMALL | {"scheme": "conforming", "n_steps": 1, "max_iter": 75, "batch_size": 16}
SETTINGS |= {"natural_iter": 20, "alpha": 50.0}


def rows(seed=0, n=64):
    noise = np.random.default_rng(seed).standard_normal((n, 2))
    return (noise + np.array([2.0, -1.0])).astype(jax.dtypes.canonicalize_dtype(float))


def same(a, b) -> bool:
    """Bit for bit."""
    left, right = jax.tree.leaves(a), jax.tree.leaves(b)
    return all(
        np.asarray(u).tobytes() == np.asarray(v).tobytes() for u, v in zip(left, right, strict=True)
    )


def without_seconds(history):
    return {k: np.asarray(v).tobytes() for k, v in history.items() if k != "seconds"}


def assert_same(found, expected) -> None:
    assert same(found.potential, expected.potential)
    assert without_seconds(found.history) == without_seconds(expected.history)
    assert found.status == expected.status
    assert found.best_iteration == expected.best_iteration
    assert found.scheme == expected.scheme
    assert (np.diff(found.history["seconds"]) >= 0).all()


class Stop:
    """A callback that interrupts at the n-th row of a phase, and remembers the rows."""

    def __init__(self, n=None, phase="first-order"):
        self.n, self.phase, self.rows = n, phase, []

    def __call__(self, row):
        self.rows.append(row)
        if row["phase"] == self.phase and self.n == sum(
            r["phase"] == self.phase for r in self.rows
        ):
            raise KeyboardInterrupt


def first_order(path=None, stop=None, scheme=None, resume=False, **config):
    config = {"alpha": 3.0, "validate_every": 5, "max_iter": 30, "batch_size": 24} | config
    watch = Watch(path, 10, resume, stop)
    start = Translation(jnp.zeros(2))
    arguments = (StandardNormal(2), rows(), rows(1), TrainingConfig(**config), False, watch)
    return train(start, scheme or Glide(1), *arguments, watch.open(config) if path else None)


def natural(path=None, stop=None, resume=False, max_iter=40, log_density=None):
    watch = Watch(path, 10, resume, stop)
    stream = np.random.default_rng(5)  # a draw that depends on those before it
    config = NaturalConfig(alpha=100.0, max_iter=max_iter, largest_kl=1.0)
    return polish(
        Translation(jnp.zeros(2)),
        Glide(1),
        StandardNormal(2),
        lambda k: rows(int(stream.integers(1000)), 50),
        rows(1),
        config,
        log_density,
        False,
        watch,
        watch.open({}) if path else None,
    )


class Finished(NamedTuple):
    """A run to the end, the rows that its callback got, and its file."""

    result: TrainingResult
    rows: list
    content: bytes


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    heard, path = Stop(), tmp_path_factory.mktemp("finished") / "c"
    result = first_order(path, heard)
    return Finished(result, heard.rows, path.read_bytes())


@pytest.fixture
def path(tmp_path, finished):
    """A copy of the file of the finished run."""
    path = tmp_path / "c"
    path.write_bytes(finished.content)
    return path


def in_parts(run):
    """What a run ends with that was stopped and gone on with, twice at least."""
    for stops in range(100):
        found = run()
        if found.status != "interrupted":
            assert stops > 1
            return found
    raise AssertionError("the run does not end")


CASES = {
    "early stopping": {"max_iter": 400, "patience": 3, "learning_rate": 0.2},
    "refined": {"scheme": Biased(1), "nll_tolerance": 0.5, "learning_rate": 0.1, "max_iter": 20},
    # quick: the run on a full disk, below, is resumed to its end
    "to the end": {},
    # quick: test_batches skips those too
    "batches of all rows": {"batch_size": 1000},
}
SLOW = dict.fromkeys(("to the end", "batches of all rows"), pytest.mark.slow)


@pytest.mark.parametrize(
    "options", [pytest.param(CASES[k], id=k, marks=SLOW.get(k, ())) for k in CASES]
)
def test_first_order_steps_go_on_to_the_same_bits(tmp_path, options):
    """Stopped at the second, fourth, ... row, again and again in one run."""
    expected = first_order(**options)
    if "scheme" in options:
        assert expected.scheme.n_steps > 1
    if "patience" in options:
        assert expected.status == "early_stopping"
    found = in_parts(lambda: first_order(tmp_path / "c", Stop(3), resume=True, **options))
    assert_same(found, expected)


def log_density(x):
    """Of `rows`, for the control variate."""
    return -0.5 * jnp.sum((x - np.array([2.0, -1.0])) ** 2, axis=1) - np.log(2 * np.pi)


@pytest.mark.parametrize(
    "known", [pytest.param(log_density, id="known"), pytest.param(None, marks=pytest.mark.slow)]
)
def test_natural_steps_go_on_to_the_same_bits(tmp_path, float64, known):
    expected = natural(log_density=known)
    found = in_parts(lambda: natural(tmp_path / "c", Stop(3, "natural"), True, log_density=known))
    assert_same(found, expected)


def test_a_finished_run_takes_no_step(path, finished, monkeypatch):
    def untouched(*args):
        raise AssertionError("a step was taken")

    monkeypatch.setattr(loop_module, "make_block", untouched)
    assert_same(first_order(path, resume=True), finished.result)


def test_the_callback_gets_every_row_once(finished):
    """Rows that were reported before the interruption and not kept come again."""
    assert [row["iteration"] for row in finished.rows] == list(range(0, 31, 5))
    assert {row["phase"] for row in finished.rows} == {"first-order"}
    assert finished.rows[3]["val_nll"] > 0


def test_writes_happen_every_so_many_steps(tmp_path, monkeypatch):
    seen, write = [], tensorfile.save_file

    def save(tensors, path, metadata):
        seen.append(path)
        write(tensors, path, metadata)

    monkeypatch.setattr(tensorfile, "save_file", save)
    first_order(tmp_path / "c")
    assert len(seen) == 3  # at 10, 20 and the end
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def fit(path=None, stop=None, resume=False, x=X, **settings):
    model = OTFlow(**SETTINGS | settings)
    watch = {} if path is None else {"checkpoint": path, "checkpoint_every": 25, "resume": resume}
    try:
        return model.fit(x, on_validation=stop, **watch)
    except KeyboardInterrupt:
        return model


@pytest.mark.slow
def test_a_fit_stopped_in_both_phases_ends_as_if_it_had_not_been(tmp_path):
    rk4, path = {"scheme": "rk4", "n_steps": 2}, tmp_path / "c"
    expected = fit(**rk4)
    assert expected.natural_history_["iteration"] == [0, 10, 20]
    assert fit(path, Stop(3), **rk4).status_ == "interrupted"
    assert fit(path, Stop(2, "natural"), resume=True, **rk4).status_ == "interrupted"
    found = fit(path, resume=True, **rk4)
    assert same(found.flow_, expected.flow_)
    assert found.status_ == expected.status_ == "max_iter"
    assert without_seconds(found.history_) == without_seconds(expected.history_)
    assert without_seconds(found.natural_history_) == without_seconds(expected.natural_history_)


class Terminated(NamedTuple):
    """The file of a fit that SIGTERM ended at step 50, and who handled it during the fit."""

    path: Path
    handler: object


@pytest.fixture(scope="module")
def terminated(tmp_path_factory):
    """As a cluster's scheduler ends a job. Steps go nowhere here."""
    path, handlers = tmp_path_factory.mktemp("terminated") / "c", []

    def terminate(row):
        if row["iteration"] == 50:
            handlers.append(signal.getsignal(signal.SIGTERM))
            assert handlers[0] is not signal.SIG_DFL
            os.kill(os.getpid(), signal.SIGTERM)

    def make_block(*args):
        def block(params, static, state, batches, *args):
            zeros = np.zeros(batches.n, np.float32)
            return params, state, StepLog(Costs(zeros, zeros, zeros), zeros == 0)

        return block

    model = OTFlow(**SETTINGS | {"natural_iter": 0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module, "make_block", make_block)
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, checkpoint=path, checkpoint_every=25, on_validation=terminate)
    return Terminated(path, handlers[0])


def test_sigterm_keeps_the_run(terminated):
    assert terminated.handler is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    document = tensorfile.read_header(terminated.path, "otflow-checkpoint").document
    assert document["sections"]["first-order"]["iteration"] == 25  # before the row that was cut


def test_other_threads_can_train_with_a_checkpoint(tmp_path, monkeypatch):
    """Signals belong to the main thread."""
    no_training(monkeypatch)
    done = []
    work = threading.Thread(target=lambda: done.append(fit(tmp_path / "c", natural_iter=0)))
    work.start()
    work.join()
    assert done[0].status_ == "max_iter"


OTHERS = {
    "a setting": ({"alpha": 51.0}, r"alpha \(50\.0 there, 51\.0 now\)\.$"),
    "the seed": ({"random_state": 1}, r"random_state \(.* there, .* now\), x, x_val\.$"),
    "rows": ({"x": X[::-1]}, r"what differs: x, x_val\.$"),
    "the target": (
        {"target": GaussianMixture([1.0], [[0.0, 0.0]], [np.eye(2)])},
        r"what differs: target\.$",
    ),
}


@pytest.mark.parametrize(("change", "message"), OTHERS.values(), ids=OTHERS)
def test_another_run_is_refused_by_name(terminated, monkeypatch, change, message):
    before = terminated.path.read_bytes()
    monkeypatch.setattr("otflow.estimator.fitting.train", None)
    with pytest.raises(ValueError, match=f"the checkpoint is of another run; .*{message}"):
        fit(terminated.path, resume=True, **{"natural_iter": 0} | change)
    assert terminated.path.read_bytes() == before


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_damaged_checkpoint(path, finished, share):
    path.write_bytes(finished.content[: int(share * len(finished.content))])
    with pytest.raises(ValueError, match="c: not a readable checkpoint"):
        first_order(path, resume=True)


def test_a_model_file_is_no_checkpoint(tmp_path):
    tensorfile.write_tensors(tmp_path / "m", "otflow", {}, {"a": np.zeros(3)})
    with pytest.raises(ValueError, match=r"not a readable checkpoint .*another program"):
        first_order(tmp_path / "m", resume=True)


def test_arrays_of_another_shape(path):
    """A damaged or hand-made file: the identity agrees, the arrays do not."""
    header = tensorfile.read_header(path, "otflow-checkpoint")
    tensors = {k: v[None] for k, v in tensorfile.read_tensors(path).items()}
    tensorfile.write_tensors(path, "otflow-checkpoint", header.document, tensors, True)
    with pytest.raises(ValueError, match="arrays of another shape"):
        first_order(path, resume=True)


def test_a_full_disk_does_not_end_the_run(tmp_path, finished, monkeypatch):
    """The second write fails: a warning, the first file stays, the result is the same."""
    expected, writes, path = finished.result, [], tmp_path / "c"
    write = tensorfile.save_file

    def save(tensors, target, metadata):
        writes.append(target)
        if len(writes) > 1:
            target.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        write(tensors, target, metadata)

    monkeypatch.setattr(tensorfile, "save_file", save)
    with pytest.warns(UserWarning, match="could not be written and training goes on: .*No space"):
        found = first_order(path)
    assert_same(found, expected)
    monkeypatch.setattr(tensorfile, "save_file", write)
    assert_same(first_order(path, resume=True), expected)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_refused_before_any_compute(tmp_path, monkeypatch):
    monkeypatch.setattr("otflow.estimator.fitting.train", None)
    model = OTFlow(**SETTINGS)
    (tmp_path / "old").touch()
    with pytest.raises(FileExistsError, match="old holds a run: resume it, or remove"):
        model.fit(X, checkpoint=tmp_path / "old")
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"):
        model.fit(X, checkpoint=tmp_path / "no" / "c")
    with pytest.raises(ValueError, match="resume: expected a checkpoint"):
        model.fit(X, resume=True)
    with pytest.raises(ValueError, match="checkpoint_every: expected an integer >= 1; got 0"):
        model.fit(X, checkpoint=tmp_path / "c", checkpoint_every=0)
    with pytest.raises(TypeError, match="on_validation: expected a function"):
        model.fit(X, on_validation=3)
    with pytest.raises(ValueError, match=r"random_state: expected an integer .*; got None"):
        OTFlow(**SETTINGS | {"random_state": None}).fit(X, checkpoint=tmp_path / "c")

    def read_only(**options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(PermissionError, match=r"cannot write .*c: Read-only file system"):
        model.fit(X, checkpoint=tmp_path / "c")
