"""Few rows, far rows, heavy tails, and columns that are nearly constant, tiny or huge."""

from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pandas
import pytest

from otflow import OTFlow, load
from otflow.data.preprocessing import constant_columns
from otflow.data.shards import ShardedTable
from otflow.flow.flow import Flow
from tests.fakes import SMALL, forbid_training, no_training, train_arguments, untrained

SAVED = Path(__file__).parents[1] / "saved"
X = np.random.default_rng(0).standard_normal((60, 2))
CONVEX = {"n_steps": 2, "width": 16, "max_iter": 25, "random_state": 0, "verbose": False}


# --- few rows --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "fraction", "trained", "message"),
    [
        (9, 0.1, 8, "0.1 of 9 rows is no whole row: one is held out"),
        (4, 0.1, 3, "one is held out"),
        (3, 0.1, 3, "nothing stops training in time"),
        (9, 0.0, 9, None),
        (10, 0.1, 9, None),
        (10, 0.7, 3, None),
    ],
)
def test_one_of_few_rows_is_held_out_and_told(n, fraction, trained, message, monkeypatch):
    given = []

    def spy(*args, **kwargs):
        given.append(train_arguments(*args, **kwargs))
        return untrained(*args, **kwargs)

    monkeypatch.setattr("otflow.estimator.fitting.train", spy)
    model = OTFlow(**SMALL | {"validation_fraction": fraction})
    if message is None:
        model.fit(X[:n])
    else:
        with pytest.warns(UserWarning, match=f"^validation_fraction: .*{message}"):
            model.fit(X[:n])
    x, x_val = given[0]["x"], given[0]["x_val"]
    assert (x.n, 0 if x_val is None else x_val.n) == (trained, n - trained)


def test_a_share_that_leaves_one_row_is_to_blame(monkeypatch):
    forbid_training(monkeypatch)
    for n, fraction in ((10, 0.95), (2, 0.5)):
        message = f"^validation_fraction: expected to leave two rows.*{fraction}, which leaves 1 of"
        with pytest.raises(ValueError, match=message):
            OTFlow(**SMALL | {"validation_fraction": fraction}).fit(X[:n])


def test_a_column_that_varies_over_the_held_out_row_only(monkeypatch):
    forbid_training(monkeypatch)
    rows = X[:20].copy()
    rows[:, 1] = 3.0
    order = np.random.default_rng(OTFlow()._seed(SMALL["random_state"])).permutation(20)
    rows[order[0], 1] = 0.0  # the first ones are held out
    with pytest.raises(ValueError, match=r"constant column\(s\) x1\. They vary over the rows held"):
        OTFlow(**SMALL | {"validation_fraction": 0.5}).fit(rows)


# --- columns ---------------------------------------------------------------------------------


def test_constant_to_the_last_bits():
    rng = np.random.default_rng(0)
    sums = np.array([sum(rng.permutation([0.1, 0.2, 0.3, 0.7, 1e-3])) for _ in range(50)])
    assert len(set(sums)) > 1
    columns = [sums, 1e9 + 1e-7 * X[:50, 0], 1e9 + 1e-3 * X[:50, 0], X[:50, 0] * 1e-300]
    assert constant_columns(np.column_stack(columns)).tolist() == [True, True, False, False]


def test_a_nearly_constant_column_is_named(monkeypatch, tmp_path):
    forbid_training(monkeypatch)
    rows = np.column_stack([X[:, 0], np.where(X[:, 1] > 0, 0.7 + 0.1, 0.8)])
    assert len(set(rows[:, 1])) == 2
    with pytest.raises(ValueError, match=r"^X: .*got constant column\(s\) x1\."):
        OTFlow(**SMALL).fit(rows)
    np.save(tmp_path / "t.npy", rows)
    with pytest.raises(ValueError, match=r"^paths: .*got constant column\(s\) x1\."):
        OTFlow(**SMALL).fit(ShardedTable(tmp_path / "t.npy"))


def test_a_nearly_constant_condition_is_only_centred(monkeypatch):
    no_training(monkeypatch)
    c = np.where(X[:, :1] > 0, 0.7 + 0.1, 0.8)
    assert OTFlow(**SMALL).fit(X, condition=c).condition_scaler_.scale == 1.0


@pytest.mark.parametrize("size", [1e200, 1e-200])
@pytest.mark.parametrize("argument", ["X", "condition", "paths"])
def test_variances_that_over_or_underflow(size, argument, monkeypatch, tmp_path):
    forbid_training(monkeypatch)
    rows = X * [1.0, size]
    given = {"X": X, "condition": rows} if argument == "condition" else {"X": rows}
    if argument == "paths":
        np.save(tmp_path / "t.npy", rows)
        given = {"X": ShardedTable(tmp_path / "t.npy")}
    name = "c1" if argument == "condition" else "x1"
    with pytest.raises(ValueError, match=rf"^{argument}: .*underflows in column\(s\) {name}\."):
        OTFlow(**SMALL).fit(**given)


def test_what_float32_cannot_hold_without_standardisation(monkeypatch):
    forbid_training(monkeypatch)
    for rows in (X * [1, 1e30], X * [1, 1e-30], X + np.array([0, 1e9])):
        with pytest.raises(ValueError, match=r"^X: .*variance float32 can hold.*\(s\) x1\."):
            OTFlow(**SMALL | {"standardize": False}).fit(rows)
    with pytest.raises(ValueError, match=r"^X_val: .*float32.*\(s\) x0\."):
        OTFlow(**SMALL).fit(X, X_val=[[1e39, 0.0]])


# --- far rows --------------------------------------------------------------------------------


@pytest.mark.parametrize("potential", ["convex", "resnet"])
def test_far_rows_have_no_nan_and_are_counted(potential, monkeypatch):
    no_training(monkeypatch)
    scheme = "conforming" if potential == "convex" else "rk4"
    model = OTFlow(**SMALL | {"scheme": scheme, "potential": potential}).fit(X)
    rows = np.vstack([X[:3], [[-3.4028235e38, 0.0], [1e300, -1e300], [1e20, 0.0]]])
    with pytest.warns(UserWarning, match=r"of 6 rows have log-density -inf: .*too far out") as told:
        scores = model.score_samples(rows)
    lost = np.isneginf(scores)
    assert not np.isnan(scores).any()
    assert np.isfinite(scores[:3]).all()
    assert str(told[0].message).startswith(f"{lost.sum()} of 6")
    assert lost[3:5].all()
    with pytest.warns(UserWarning, match=r"[123] of 6 rows are carried to no finite point"):
        model.transform(rows)
    with pytest.warns(UserWarning, match=r"[123] of 6 rows have no inverse that is safe"):
        model.inverse_transform(rows)


def test_a_flow_itself_has_no_nan(monkeypatch):
    no_training(monkeypatch)
    flow = OTFlow(**CONVEX).fit(X).flow_
    assert isinstance(flow, Flow)
    far = np.array([[3e38, 3e38], [0.0, 0.0]], np.float32)
    assert np.isneginf(np.asarray(flow.log_prob(far))).tolist() == [True, False]


# --- heavy tails -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:X. column")
@pytest.mark.parametrize(
    "dim", [3, pytest.param(8, marks=pytest.mark.slow), pytest.param(28, marks=pytest.mark.slow)]
)
@pytest.mark.filterwarnings("ignore:.*principal variances lie below")  # one row's tail is all
def test_no_row_of_heavy_tails_is_without_density_or_inverse(dim):
    """Student's t of 1.5 degrees of freedom: held-out rows reach far beyond those of training.
    float32 in the flow's space: 1e-4 of a row's size there (measured 1e-6)."""
    rng = np.random.default_rng(dim)
    mix = rng.standard_normal((dim, dim))
    rows, held = (rng.standard_t(1.5, (600, dim)) @ mix for _ in range(2))
    model = OTFlow(**CONVEX).fit(rows)  # a warning is an error
    assert np.isfinite(model.score_samples(held)).all()
    back = model.inverse_transform(model.transform(held))
    z, found = (model.standardizer_.forward(part) for part in (held, back))
    size = 1 + np.linalg.norm(z, axis=1, keepdims=True)
    assert (np.abs(found - z) / size).max() < 1e-4
    assert np.isfinite(model.score_samples(model.sample(600))).all()


@pytest.mark.filterwarnings("ignore:the map may fold, and the integral")
def test_a_saved_map_that_folds_counts_its_rows(tmp_path):
    """Files of older versions hold networks; this one's is made so steep that it folds."""
    model = load(SAVED / "version-0.1.0.otflow")
    potential = model.flow_.potential
    assert not potential.bijective
    steep = jax.tree.map(lambda weight: 6 * weight, potential)
    model.flow_ = eqx.tree_at(lambda flow: flow.potential, model.flow_, steep)
    model.save(tmp_path / "m.otflow")
    model = load(tmp_path / "m.otflow")
    rows = pandas.DataFrame(model.model_.from_flow(2 * X), columns=model.columns_)
    with pytest.warns(
        UserWarning, match=r"of 60 rows have log-density -inf: the map folds"
    ) as told:
        scores = model.score_samples(rows)
    counts = [str(w.message) for w in told if "-inf" in str(w.message)]
    assert counts[0].startswith(f"{np.isneginf(scores).sum()} of 60 rows")
    assert not np.isnan(scores).any()
    with pytest.warns(UserWarning, match=r"^\d+ of 60 rows have no inverse that is safe: the map"):
        model.inverse_transform(2 * X)


@pytest.mark.parametrize("name", ["version-0.1.0.otflow", "version1.safetensors"])
def test_saved_maps_that_do_not_fold_lose_no_row(name):
    model = load(SAVED / name)
    rows = pandas.DataFrame(model.model_.from_flow(X), columns=model.columns_)
    with pytest.warns(UserWarning, match="the integral of its density was not measured"):
        scores = model.score_samples(rows)
    assert np.isfinite(scores).all()
    back = model.inverse_transform(model.transform(rows))
    np.testing.assert_allclose(model.model_.to_flow(back), X, atol=1e-4)
