"""OTFlow as scikit-learn knows it, in the data's own units, however training ends."""

import copy
import math
import pickle

import jax
import numpy as np
import polars
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

import otflow.estimator.estimator
import otflow.estimator.fitting
import otflow.training.loop as loop_module
from otflow.estimator.estimator import OTFlow, TrainingDivergedError
from otflow.flow.flow import Flow
from otflow.support.precision import dtype_of
from otflow.targets import GaussianMixture, StandardNormal
from tests.blocks import shared_blocks
from tests.fakes import SMALL, no_training, train_arguments, untrained
from tests.models import MOONS, MOONS_VAL, RK4

N = len(MOONS)  # rows a call and draws nearly everywhere: other numbers would be other programs
QUICK = SMALL | {"scheme": "conforming", "n_steps": 1}
NAMES = ["height", "weight"]
# powers of two: columns times A are exact, so that fits on X and on A X see the same numbers
A, B = np.array([4.0, 2.0**-10]), np.array([100.0, -7.0])


@pytest.fixture(autouse=True, scope="module")
def blocks():
    """Fits of the same settings share their compiled program."""
    with shared_blocks():
        yield


@pytest.fixture(scope="module")
def moons_flow(blocks, trained):
    """Trained by RK4 for 50 steps, float32, with validation rows."""
    return trained("rk4")


@pytest.fixture(scope="module")
def float64_flow(blocks):
    """Trained in float64 on a data frame, columns as they are."""
    frame = polars.DataFrame(MOONS, schema=NAMES)
    settings = QUICK | {"dtype": "float64", "standardize": False, "learning_rate": 0.03, "depth": 0}
    settings["potential"] = "resnet"
    return OTFlow(**settings).fit(frame)


@pytest.fixture
def quick(monkeypatch):
    """Estimators do not train."""
    no_training(monkeypatch)


def integral(model):
    """The density summed over a grid of the plane, cells 1/7 wide, N points a call."""
    line = np.linspace(-8, 8, 113)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    scores = [model.score_samples(grid[i : i + N]) for i in range(0, len(grid), N)]
    return np.exp(np.concatenate(scores)).sum() * (line[1] - line[0]) ** 2


def evaluated_objective(model, X):
    """transport + alpha nll + beta hjb of a flow_ by rk4 itself on rows of the data, in float64."""
    z = model.standardizer_.forward(X).astype(model.dtype)
    pushed = jax.tree.map(lambda array: np.asarray(array, np.float64), model.flow_.push(z))
    nll = 0.5 * (pushed.points**2).sum(axis=1) + math.log(2 * math.pi) - pushed.log_det
    return float(np.mean(pushed.transport + model.alpha * nll + model.beta * pushed.hjb))


# --- results -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "which", ["moons_flow", pytest.param("float64_flow", marks=pytest.mark.slow)]
)
def test_shapes_and_types(which, request):
    model = request.getfixturevalue(which)
    X = MOONS
    if which == "float64_flow":
        X = polars.DataFrame(X, schema=NAMES)
    for array, shape in (
        (model.score_samples(X), (N,)),
        (model.transform(X), (N, 2)),
        (model.inverse_transform(MOONS), (N, 2)),
        (model.sample(N), (N, 2)),
    ):
        assert type(array) is np.ndarray
        assert array.dtype == np.float64
        assert array.shape == shape
        assert np.isfinite(array).all()
    assert type(model.score(X)) is float
    assert model.score(X) == pytest.approx(model.score_samples(X).mean(), rel=1e-12)
    assert isinstance(model.flow_, Flow)
    assert model.n_features_in_ == 2


def test_history(moons_flow):
    history = moons_flow.history_
    assert {len(column) for column in history.values()} == {3}
    assert history["iteration"] == [0, 25, 50]
    wanted = {
        f"{part}_{c}" for part in ("train", "val") for c in ("transport", "nll", "straightness")
    }
    assert wanted | {"seconds", "learning_rate", "objective"} <= set(history)
    assert moons_flow.status_ == "max_iter"


def test_training_lowers_the_validation_objective(moons_flow):
    """From the best Gaussian start: by 5 % at least, and the nll by 0.1 nats (measured: 0.27)."""
    first, *_, last = moons_flow.history_["objective"]
    assert last < 0.95 * first
    assert moons_flow.history_["val_nll"][-1] < moons_flow.history_["val_nll"][0] - 0.1


def test_the_best_weights_are_kept_and_judged_by_X_val(moons_flow):
    """history_ against flow_ evaluated here on X_val; float32 sums: 1e-5."""
    best = min(moons_flow.history_["objective"])
    assert evaluated_objective(moons_flow, MOONS_VAL) == pytest.approx(best, rel=1e-5)
    trained_on = np.mean([evaluated_objective(moons_flow, half) for half in np.split(MOONS, 2)])
    assert trained_on != pytest.approx(best, rel=1e-3)
    at = moons_flow.history_["objective"].index(best)
    assert moons_flow.n_iter_ == moons_flow.history_["iteration"][at]


def test_density_integrates_to_one(moons_flow):
    """RK4 with 4 steps leaves an error in the log-determinant: 2e-3."""
    assert integral(moons_flow) == pytest.approx(1.0, abs=2e-3)


def test_density_is_the_change_of_variables_of_transform(float64_flow):
    """The Jacobian of `transform` by central differences, h = 1e-5; the scheme is exact: 1e-8."""
    x, h = MOONS, 1e-5
    columns = []
    for j in range(2):
        step = h * np.eye(2)[j]
        ahead, behind = (
            float64_flow.transform(polars.DataFrame(x + s, schema=NAMES)) for s in (step, -step)
        )
        columns.append((ahead - behind) / (2 * h))
    log_det = np.linalg.slogdet(np.stack(columns, axis=-1)).logabsdet
    frame = polars.DataFrame(x, schema=NAMES)
    y = float64_flow.transform(frame)
    expected = -0.5 * (y**2).sum(axis=1) - math.log(2 * math.pi) + log_det
    np.testing.assert_allclose(float64_flow.score_samples(frame), expected, atol=1e-8)
    assert np.ptp(log_det) > 0.1  # the map is not merely affine


def test_transform_and_back(moons_flow):
    """RK4 backwards with 4 steps is the inverse up to its integration error: 5e-3."""
    there = moons_flow.transform(MOONS)
    np.testing.assert_allclose(moons_flow.inverse_transform(there), MOONS, atol=5e-3)
    assert np.abs(there - MOONS).max() > 0.5


def test_samples_resemble_the_data(moons_flow):
    """4,096 draws: means and standard deviations within 0.25 of the data's, which are 0.3 to 1.8;
    a fit of 50 steps, so no finer."""
    draws = np.concatenate([moons_flow.sample(N, random_state=seed) for seed in range(8)])
    np.testing.assert_allclose(draws.mean(axis=0), MOONS.mean(axis=0), atol=0.25)
    np.testing.assert_allclose(draws.std(axis=0), MOONS.std(axis=0), atol=0.25)


def test_samples_follow_their_seed(moons_flow):
    first = moons_flow.sample(N, random_state=1)
    assert np.array_equal(first, moons_flow.sample(N, random_state=1))
    assert not np.array_equal(first, moons_flow.sample(N, random_state=2))
    assert np.array_equal(moons_flow.sample(N), moons_flow.sample(N, random_state=0))  # its own


@pytest.mark.parametrize(
    "n", [1, 3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 5, 130))]
)
def test_rows_are_scored_one_by_one(float64_flow, n):
    """A row's density does not depend on its company (padding included); rounding: 1e-12."""
    frame = polars.DataFrame(MOONS, schema=NAMES)
    together = float64_flow.score_samples(frame)
    np.testing.assert_allclose(float64_flow.score_samples(frame[:n]), together[:n], atol=1e-12)


# --- seeds, units, precision ---------------------------------------------------------------


def test_the_same_seed_gives_the_same_model_in_any_units(moons_flow):
    """A fit on A X + B: densities differ by sum log A, everything else is the same.

    The standardised numbers agree to float64 rounding, so to one float32 unit after rounding;
    50 training steps amplify that to 1e-4 at most.
    """
    again = OTFlow(**RK4).fit(A * MOONS + B, X_val=A * MOONS_VAL + B)
    expected = moons_flow.score_samples(MOONS) - np.log(A).sum()
    np.testing.assert_allclose(again.score_samples(A * MOONS + B), expected, atol=1e-4)
    np.testing.assert_allclose(
        again.transform(A * MOONS + B), moons_flow.transform(MOONS), atol=1e-4
    )
    np.testing.assert_allclose(again.sample(N), A * moons_flow.sample(N) + B, rtol=1e-4)
    np.testing.assert_allclose(
        again.history_["objective"], moons_flow.history_["objective"], rtol=1e-5
    )


def test_the_seed_decides_start_and_split(quick):
    """The start, and the rows that are held out; for training see the interrupted fit below."""
    first, again, other = (
        OTFlow(**QUICK | {"random_state": seed}).fit(MOONS) for seed in (1, 1, 2)
    )
    for a, b in zip(*(jax.tree.leaves(m.flow_) for m in (first, again)), strict=True):
        assert np.array_equal(a, b)
    stages, others = (m.flow_.potential.stage for m in (first, other))
    assert not np.allclose(stages.ridges, others.ridges)
    assert np.array_equal(first.standardizer_.mean, again.standardizer_.mean)
    assert not np.array_equal(first.standardizer_.mean, other.standardizer_.mean)
    assert np.abs(first.score_samples(MOONS) - other.score_samples(MOONS)).max() > 1e-3


def test_float64_is_float64(float64_flow, moons_flow):
    assert dtype_of(float64_flow.flow_) == np.float64
    assert dtype_of(moons_flow.flow_) == np.float32
    assert float64_flow.sample().shape == (1, 2)  # its own program: the quickest model's
    scores = float64_flow.score_samples(polars.DataFrame(MOONS, schema=NAMES))
    assert not np.array_equal(scores, scores.astype(np.float32))


def test_no_standardisation(float64_flow):
    assert np.array_equal(float64_flow.standardizer_.scale, [1.0, 1.0])
    assert np.array_equal(float64_flow.standardizer_.mean, [0.0, 0.0])
    frame = polars.DataFrame(MOONS, schema=NAMES)
    inner = float64_flow.flow_.log_prob(MOONS)
    np.testing.assert_allclose(float64_flow.score_samples(frame), inner, rtol=1e-12)


def test_standardisation_uses_the_training_rows(quick):
    model = OTFlow(**SMALL).fit(A * MOONS + B, X_val=B + np.zeros((3, 2)))
    np.testing.assert_allclose(model.standardizer_.mean, (A * MOONS + B).mean(axis=0))
    np.testing.assert_allclose(model.standardizer_.scale, (A * MOONS).std(axis=0))


def test_the_gaussian_base_starts_from_the_closed_form(quick):
    """Gaussian data with the base and no training: the density is near the best one already.

    At alpha = 1e4 the exact solution is within 1/alpha of the Gaussian fitted to the rows. The
    network's small random quadratic part (A) stays in Phi: 0.15 nats (measured: 0.09).
    """
    X = np.random.default_rng(0).standard_normal((400, 2)) @ [[2.0, 1.0], [0.0, 0.5]] + B
    model = OTFlow(**QUICK | {"alpha": 1e4, "validation_fraction": 0.0}).fit(X)
    r = X - X.mean(axis=0)
    cov = r.T @ r / len(X)
    mahalanobis = (r @ np.linalg.inv(cov) * r).sum(axis=1)
    expected = -0.5 * (mahalanobis + np.linalg.slogdet(2 * np.pi * cov).logabsdet)
    np.testing.assert_allclose(model.score_samples(X), expected, atol=0.15)


# --- targets and validation rows -----------------------------------------------------------


@pytest.mark.slow
def test_a_mixture_target():
    """Two far modes mapped to two far modes: the objective falls, samples keep both, and the
    density integrates to one (the scheme is exact: 1e-3 for float32)."""
    target = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [0.25 * np.eye(2)] * 2)
    rng = np.random.default_rng(0)
    X = 0.3 * rng.standard_normal((256, 2)) + np.where(rng.random((256, 1)) < 0.5, -3, 3) * [1, 0]
    model = OTFlow(**QUICK | {"learning_rate": 0.03, "depth": 0}, target=target, merging=0.0).fit(X)
    assert isinstance(model.flow_.target, GaussianMixture)
    assert min(model.history_["objective"]) < model.history_["objective"][0]
    signs = np.sign(model.sample(200)[:, 0])
    assert 60 < (signs > 0).sum() < 140
    assert integral(model) == pytest.approx(1.0, abs=1e-3)


@pytest.fixture
def asked(monkeypatch):
    """The arguments that `fit` hands to training, which does not happen."""
    seen = {}

    def spy(*args, **kwargs):
        seen.update(train_arguments(*args, **kwargs))
        return untrained(*args, **kwargs)

    monkeypatch.setattr(otflow.estimator.fitting, "train", spy)
    return seen


def rows_of(array):
    return {tuple(row) for row in np.asarray(getattr(array, "x", array), np.float32)}


def test_X_val_is_used_and_all_of_X_trains(asked):
    OTFlow(**SMALL | {"standardize": False}).fit(MOONS, X_val=MOONS_VAL)
    assert rows_of(asked["x"]) == rows_of(MOONS)
    assert rows_of(asked["x_val"]) == rows_of(MOONS_VAL)


@pytest.mark.parametrize(("share", "held_out"), [(0.1, 51), (0.5, 256), (0.001, 0)])
def test_a_share_of_the_rows_is_held_out(asked, share, held_out):
    OTFlow(**SMALL | {"standardize": False, "validation_fraction": share}).fit(MOONS)
    validation = set() if asked["x_val"] is None else rows_of(asked["x_val"])
    assert len(validation) == held_out
    assert rows_of(asked["x"]) | validation == rows_of(MOONS)
    assert rows_of(asked["x"]).isdisjoint(validation)


def test_a_share_of_zero_trains_on_all_rows(asked):
    OTFlow(**SMALL | {"validation_fraction": 0}).fit(MOONS)
    assert asked["x_val"] is None
    assert asked["x"].x.shape == MOONS.shape


def test_hyperparameters_reach_training(asked):
    OTFlow(**SMALL | {"alpha": 7, "beta": 0, "patience": 3, "learning_rate": 0.5}).fit(MOONS)
    config = asked["config"]
    assert (config.alpha, config.beta, config.max_iter, config.batch_size) == (7, 0, 25, 64)
    assert (config.patience, config.learning_rate) == (3, 0.5)
    assert asked["scheme"].n_steps == 2
    assert asked["x"].x.dtype == np.float32


# --- how training can end ------------------------------------------------------------------


def test_an_interrupted_fit_leaves_a_usable_model(moons_flow, monkeypatch, tmp_path):
    """Until then it is the uninterrupted run of the same seed, bit for bit."""
    make_block = loop_module.make_block

    def interrupted_in_the_second_call(*args):
        block, calls = make_block(*args), []

        def wrapped(*given):
            calls.append(None)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return block(*given)

        return wrapped

    monkeypatch.setattr(loop_module, "make_block", interrupted_in_the_second_call)
    model = OTFlow(**RK4)
    with pytest.raises(KeyboardInterrupt, match="weights so far are kept"):
        model.fit(MOONS, X_val=MOONS_VAL)
    assert model.status_ == "interrupted"
    assert model.n_iter_ == 25
    assert model.history_["objective"] == moons_flow.history_["objective"][:2]
    assert evaluated_objective(model, MOONS_VAL) == pytest.approx(
        model.history_["objective"][1], rel=1e-5
    )
    model.save(tmp_path / "model.otflow")
    found = otflow.load(tmp_path / "model.otflow")
    assert np.array_equal(found.score_samples(MOONS), model.score_samples(MOONS))


def test_divergence_says_what_to_change_and_leaves_the_last_good_model():
    settings = QUICK | {"learning_rate": 1e30, "max_iter": 500, "depth": 0, "n_steps": 2}
    model = OTFlow(**settings)
    with pytest.raises(TrainingDivergedError, match="non-finite") as caught:
        model.fit(MOONS)
    assert isinstance(caught.value, FloatingPointError)
    for advice in ("learning_rate (now 1e+30)", "n_steps (now 2)", "dtype='float64'"):
        assert advice in str(caught.value)
    assert model.status_ == "non_finite"
    assert model.n_iter_ == 0
    assert np.isfinite(model.score_samples(MOONS)).all()
    start = model.history_["objective"][0]
    assert math.isfinite(start)
    assert not math.isfinite(model.history_["objective"][-1])


# --- scikit-learn's conventions ------------------------------------------------------------


def test_clone_and_parameters(moons_flow):
    target = GaussianMixture([1.0], [[0.0, 0.0]], [np.eye(2)])
    model = OTFlow(**SMALL, target=target)
    params = model.get_params()
    assert SMALL.items() <= params.items()
    assert params["target"] is target
    copied = clone(model)
    assert copied is not model
    assert SMALL.items() <= copied.get_params().items()
    assert isinstance(copied.target, GaussianMixture)
    assert not hasattr(clone(moons_flow), "flow_")
    assert model.set_params(width=3).width == 3
    with pytest.raises(ValueError, match="Invalid parameter 'colour'"):
        model.set_params(colour="red")
    assert "width=3" in repr(model)


def test_fit_changes_no_parameter_and_returns_itself(quick):
    model = OTFlow(**QUICK)
    before = model.get_params()
    assert model.fit(MOONS) is model
    assert model.get_params() == before


def test_data_is_left_alone(quick):
    X = MOONS.copy()
    model = OTFlow(**QUICK).fit(X)
    model.score_samples(X)
    assert np.array_equal(X, MOONS)


def test_pipeline(quick):
    pipeline = Pipeline([("scale", StandardScaler()), ("flow", OTFlow(**QUICK))]).fit(MOONS)
    assert pipeline.score_samples(MOONS).shape == (N,)
    scaled = StandardScaler().fit(MOONS).transform(MOONS)
    expected = OTFlow(**QUICK).fit(scaled).score(scaled)
    assert pipeline.score(MOONS) == pytest.approx(expected, rel=1e-12)
    assert pipeline.fit_transform(MOONS).shape == MOONS.shape


def test_cross_validation(quick):
    scores = cross_val_score(OTFlow(**QUICK), MOONS, cv=2)
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()


def test_pickle_and_deepcopy(moons_flow):
    for again in (pickle.loads(pickle.dumps(moons_flow)), copy.deepcopy(moons_flow)):
        assert np.array_equal(again.score_samples(MOONS), moons_flow.score_samples(MOONS))
        assert np.array_equal(again.sample(N), moons_flow.sample(N))
        for name, column in moons_flow.history_.items():
            np.testing.assert_array_equal(again.history_[name], column)


def test_pickle_keeps_float64(float64_flow):
    again = pickle.loads(pickle.dumps(float64_flow))
    assert dtype_of(again.flow_) == np.float64
    frame = polars.DataFrame(MOONS, schema=NAMES)
    assert np.array_equal(again.score_samples(frame), float64_flow.score_samples(frame))


def test_data_frames_keep_their_names(float64_flow):
    assert list(float64_flow.feature_names_in_) == NAMES
    assert float64_flow.columns_ == tuple(NAMES)
    with pytest.raises(ValueError, match="feature names"):
        float64_flow.score_samples(polars.DataFrame(MOONS, schema=["height", "age"]))
    with pytest.raises(ValueError, match="feature names"):
        float64_flow.score_samples(polars.DataFrame(MOONS, schema=NAMES[::-1]))


def test_arrays_have_default_names(moons_flow):
    assert moons_flow.columns_ == ("x0", "x1")
    assert not hasattr(moons_flow, "feature_names_in_")


@pytest.mark.filterwarnings("ignore:X. column")
def test_other_containers(quick):
    model = OTFlow(**QUICK).fit(MOONS.tolist())
    expected = OTFlow(**QUICK).fit(MOONS).score_samples(MOONS)
    assert np.array_equal(model.score_samples(MOONS.tolist()), expected)
    integers = np.arange(2 * N).reshape(N, 2) % 7
    assert OTFlow(**QUICK).fit(integers).score_samples(integers).shape == (N,)


def test_one_column(quick):
    model = OTFlow(**QUICK).fit(MOONS[:, :1])
    assert model.sample(N).shape == (N, 1)
    line = np.linspace(-12, 12, N)
    total = np.exp(model.score_samples(line[:, None])).sum() * (line[1] - line[0])
    assert total == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda m: m.score_samples(MOONS), id="score_samples"),
        pytest.param(lambda m: m.score(MOONS), id="score"),
        pytest.param(lambda m: m.transform(MOONS), id="transform"),
        pytest.param(lambda m: m.inverse_transform(MOONS), id="inverse_transform"),
        pytest.param(lambda m: m.sample(2), id="sample"),
        pytest.param(lambda m: m.save("never.otflow"), id="save"),
    ],
)
def test_before_fit(use):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        use(OTFlow(**QUICK))


def test_a_random_state_object_and_none(quick):
    state = np.random.RandomState(0)
    model = OTFlow(**QUICK | {"random_state": state}).fit(MOONS)
    assert not np.array_equal(model.sample(N), model.sample(N))  # the state moves on
    free = OTFlow(**QUICK | {"random_state": None}).fit(MOONS)
    assert free.sample(N).shape == (N, 2)


def test_the_target_is_the_standard_normal_by_default(moons_flow):
    assert isinstance(moons_flow.flow_.target, StandardNormal)
    assert moons_flow.flow_.target.dim == 2


def test_certify_is_that_of_the_model(moons_flow, monkeypatch):
    """The options arrive; tests/certificates has the rest."""
    asked = []
    monkeypatch.setattr(
        otflow.certificates, "certify_model", lambda *args, **options: asked.append((args, options))
    )
    moons_flow.certify(MOONS, seconds=1.0)
    (model, rows), options = asked[0]
    assert model is moons_flow
    assert rows is MOONS
    assert options == {"seconds": 1.0}
    with pytest.raises(NotFittedError):
        OTFlow().certify(MOONS)
