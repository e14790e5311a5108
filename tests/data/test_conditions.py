"""Conditions and sample weights in OTFlow.fit: what they mean, and what is refused."""

import copy

import jax
import numpy as np
import pandas
import polars
import pytest
from scipy.stats import multivariate_normal

import otflow
import otflow.estimator.fitting
from otflow.data.beside import DataRows, check_weight
from otflow.data.conditions import check_condition
from otflow.estimator.building import regression
from otflow.estimator.estimator import OTFlow
from tests.fakes import SMALL, forbid_training, no_training, train_arguments, untrained
from tests.models import CONDITIONED, CONDITIONS

RNG = np.random.default_rng(0)
N = 200
C = np.column_stack([RNG.normal(50.0, 7.0, N), RNG.integers(2, size=N)])
W = np.array([[0.2, 3.0], [-0.5, 0.0]])
X = C @ W.T + RNG.standard_normal((N, 2)) @ [[1.0, 0.4], [0.0, 0.7]]
# the Gaussian solution is straight: one step is exact; alpha so large that T#rho0 = N(0, I)
EXACT = SMALL | {"scheme": "conforming", "n_steps": 1, "alpha": 1e6, "dtype": "float64", "depth": 0}
FRAME = polars.DataFrame(C, schema=["temperature", "night"])


@pytest.fixture
def quick(monkeypatch):
    """Estimators do not train."""
    no_training(monkeypatch)


@pytest.fixture
def model(quick):
    return OTFlow(**EXACT, validation_fraction=0).fit(X, condition=C)


class TestConditional:
    def test_without_a_network_it_is_the_gaussian_regression(self, model):
        """score_samples against least squares and SciPy; alpha = 1e6 leaves some 1e-6."""
        mean, slope = regression(X, C)
        cov = np.cov(X - C @ slope.T, rowvar=False, bias=True)
        # ridges and terms, silent to 8e-5 at the start, move densities by some 1e-3
        expected = multivariate_normal(mean, cov).logpdf(X - C @ slope.T)
        np.testing.assert_allclose(model.score_samples(X, C), expected, atol=1e-2)
        assert model.score(X, condition=C) == pytest.approx(expected.mean(), abs=2e-3)
        assert model.score(X, condition=C) > model.score(X, condition=C[::-1]) + 1

    def test_standardised_columns_of_0_and_1_are_left(self, model):
        np.testing.assert_allclose(model.condition_scaler_.mean, [C[:, 0].mean(), 0])
        np.testing.assert_allclose(model.condition_scaler_.scale, [C[:, 0].std(), 1])
        assert model.n_conditions_ == 2
        assert not hasattr(model, "condition_names_in_")

    def test_samples_are_those_of_the_condition(self, model):
        """20,000 draws: five standard errors of a mean are 0.04."""
        mean, slope = regression(X, C)
        c = np.array([30.0, 1.0])
        draws = model.sample(20_000, random_state=1, condition=c)
        np.testing.assert_allclose(draws.mean(axis=0), mean + slope @ c, atol=0.04)
        rows = np.tile(c, (20_000, 1))
        np.testing.assert_array_equal(model.sample(20_000, random_state=1, condition=rows), draws)

    def test_transform_and_back(self, model):
        z = model.transform(X, C)
        np.testing.assert_allclose(model.inverse_transform(z, C), X, atol=1e-9)
        assert abs(np.corrcoef(z[:, 0], C[:, 0])[0, 1]) < 1e-3
        again = OTFlow(**model.get_params()).fit_transform(X, condition=C)
        np.testing.assert_array_equal(again, z)

    def test_given_is_an_unconditional_model(self, model, tmp_path):
        one = model.given(C[3])
        assert one.n_conditions_ == 0
        np.testing.assert_allclose(one.score_samples(X), model.score_samples(X, C[3]), rtol=1e-10)
        one.save(tmp_path / "one.otflow")
        found = otflow.load(tmp_path / "one.otflow")
        np.testing.assert_array_equal(found.score_samples(X), one.score_samples(X))
        assert model.n_conditions_ == 2
        with pytest.raises(ValueError, match=r"^condition: expected none, the model is unc"):
            one.given(C[3])
        with pytest.raises(ValueError, match=r"^condition: expected shape \(2,\); got \(200, 2\)"):
            model.given(C)

    def test_certify_asks_for_a_given_one(self, model):
        with pytest.raises(ValueError, match=r"^flow: expected an unconditional flow"):
            model.certify(X)

    def test_saved_and_copied(self, quick, tmp_path):
        model = OTFlow(**EXACT).fit(X, condition=FRAME)
        model.save(tmp_path / "model.otflow")
        for found in (otflow.load(tmp_path / "model.otflow"), copy.deepcopy(model)):
            assert list(found.condition_names_in_) == ["temperature", "night"]
            scores = found.score_samples(X, FRAME)
            np.testing.assert_array_equal(scores, model.score_samples(X, FRAME))

    def test_names_are_kept_and_compared(self, quick):
        model = OTFlow(**EXACT).fit(X, condition=FRAME)
        model.score_samples(X, C)
        with pytest.raises(ValueError, match=r"^condition: expected the columns temp.*; got night"):
            model.score_samples(X, FRAME[:, ::-1])

    def test_a_later_fit_without_forgets_it(self, quick):
        model = OTFlow(**EXACT).fit(X, condition=FRAME).fit(X)
        assert model.n_conditions_ == 0
        assert model.condition_scaler_ is None
        assert not hasattr(model, "condition_names_in_")

    @pytest.mark.parametrize(
        "call",
        [
            lambda m: m.score_samples(X),
            lambda m: m.transform(X),
            lambda m: m.inverse_transform(X),
            lambda m: m.sample(3),
            lambda m: m.score_samples(X, C[:5]),
            lambda m: m.score_samples(X, C[:, :1]),
            lambda m: m.sample(3, condition=C),
        ],
    )
    def test_a_missing_or_other_condition_is_refused(self, model, call):
        with pytest.raises(ValueError, match=r"^condition: expected shape .* or \(2,\); got"):
            call(model)

    def test_a_model_without_one_refuses_it(self, quick):
        model = OTFlow(**EXACT).fit(X)
        for call in (
            lambda: model.score_samples(X, C),
            lambda: model.transform(X, C),
            lambda: model.sample(2, condition=C[0]),
        ):
            with pytest.raises(ValueError, match=r"^condition: expected none"):
                call()

    @pytest.mark.parametrize("natural_iter", [pytest.param(0, marks=pytest.mark.slow), 2])
    def test_training(self, natural_iter):
        """A few steps of both phases: the weights kept are the best, better than the regression.

        At alpha = 1e6 the nll, here in the standardised space, is the objective to 1e-5.
        """
        model = OTFlow(**EXACT | {"max_iter": 5}, natural_iter=natural_iter)
        model.fit(X, condition=C, X_val=X, condition_val=C)
        nll = model.standardizer_.log_det - model.score(X, condition=C)
        found = model.history_["val_nll"]
        if natural_iter:
            found = found + model.natural_history_["val_nll"]
        assert nll == pytest.approx(min(found), abs=1e-5)
        assert nll < found[0]
        assert np.isfinite(model.score_samples(X, C)).all()
        assert model.status_ == "max_iter"


class TestWeights:
    COUNTS = np.random.default_rng(5).integers(0, 4, N)

    @pytest.mark.parametrize("condition", [None, C], ids=["plain", "conditional"])
    def test_integer_weights_are_repeated_rows(self, quick, condition):
        """Standardiser and Gaussian start; training itself in tests/training/test_step.py."""
        settings = EXACT | {"validation_fraction": 0}
        rows = np.repeat(np.arange(N), self.COUNTS)
        c = None if condition is None else condition[rows]
        models = (
            OTFlow(**settings).fit(X, condition=condition, sample_weight=self.COUNTS),
            OTFlow(**settings).fit(X[rows], condition=c),
            OTFlow(**settings).fit(X, condition=condition),
        )
        found, expected, plain = (m.score_samples(X, condition) for m in models)
        np.testing.assert_allclose(found, expected, atol=1e-9)
        assert np.abs(found - plain).max() > 1e-3

    def test_rows_of_weight_zero_might_as_well_be_absent(self, monkeypatch):
        """What reaches training is the same bit for bit, the split into two included."""
        given = []

        def spy(*args, **kwargs):
            given.append(train_arguments(*args, **kwargs))
            return untrained(*args, **kwargs)

        monkeypatch.setattr(otflow.estimator.fitting, "train", spy)
        used = self.COUNTS > 0
        OTFlow(**SMALL).fit(X, condition=C, sample_weight=self.COUNTS)
        OTFlow(**SMALL).fit(X[used], condition=C[used], sample_weight=self.COUNTS[used])
        for part in ("x", "x_val", "potential"):
            found, expected = (jax.tree.leaves(arguments[part]) for arguments in given)
            assert len(found) >= 3
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)
        assert given[0]["x"].weight.mean() == pytest.approx(1.0, rel=1e-6)
        assert given[0]["x_val"].weight.mean() == pytest.approx(1.0, rel=1e-6)

    def test_their_scale_means_nothing(self, quick):
        """Powers of two leave every bit."""
        a, b = (OTFlow(**EXACT).fit(X, sample_weight=s * self.COUNTS) for s in (1.0, 8.0))
        np.testing.assert_array_equal(a.score_samples(X), b.score_samples(X))


NO_NIGHT = FRAME.with_columns(night=polars.lit(float("nan")))
OTHER_NAMES = FRAME.rename({"night": "day"})
BAD_FITS = {
    "condition of one axis": ({"condition": C[:150, 0]}, r"condition: expected shape \(200, k\)"),
    "condition of fewer rows": ({"condition": C[:5]}, r"condition: expected shape \(200, k\)"),
    "no columns": ({"condition": C[:, :0]}, r"condition: expected shape \(200, k\)"),
    "text": ({"condition": [["a"]] * N}, "condition: expected numbers"),
    "NaN": ({"condition": np.where(C > 60, np.nan, C)}, "condition: .* NaN or infinity in c0"),
    "NaN in a frame": ({"condition": NO_NIGHT}, "condition: .* NaN or infinity in night"),
    "condition_val missing": ({"condition": C, "X_val": X}, "condition_val: expected shape"),
    "condition_val alone": ({"condition_val": C, "X_val": X}, "condition_val: expected none"),
    "no X_val": ({"condition": C, "condition_val": C}, "condition_val: expected none"),
    "condition_val of other names": (
        {"condition": FRAME, "X_val": X, "condition_val": OTHER_NAMES},
        "condition_val: expected the columns",
    ),
    "weights of another length": ({"sample_weight": np.ones(5)}, r"sample_weight: .*\(200,\)"),
    "weights of two axes": ({"sample_weight": np.ones((N, 1))}, r"sample_weight: .*\(200,\)"),
    "negative weights": ({"sample_weight": -np.ones(N)}, "sample_weight: expected finite"),
    "infinite weights": ({"sample_weight": np.full(N, np.inf)}, "sample_weight: expected finite"),
    "weights of text": ({"sample_weight": ["a"] * N}, "sample_weight: expected numbers"),
    "no weight": ({"sample_weight": np.zeros(N)}, "sample_weight: expected two or more"),
    "one weight": ({"sample_weight": np.eye(N)[0]}, "sample_weight: expected two or more"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_FITS.values(), ids=BAD_FITS)
def test_bad_arguments_are_refused_before_training(arguments, message, monkeypatch):
    forbid_training(monkeypatch)
    with pytest.raises(ValueError, match=f"^{message}"):
        OTFlow(**SMALL).fit(X, **arguments)


def test_one_column_may_be_a_vector_and_one_number_a_condition():
    """(n,) is a column while fitting and where k = 1; a number stands for all points."""
    column = [[1.0], [2.0], [3.0]]
    for k in (None, 1):
        np.testing.assert_array_equal(check_condition([1, 2, 3], 3, k), column)
    np.testing.assert_array_equal(check_condition(pandas.Series([1, 2, 3]), 3, 1), column)
    np.testing.assert_array_equal(check_condition(2, 3, 1), [[2.0]] * 3)
    np.testing.assert_array_equal(check_condition([2], 3, 1), [[2.0]] * 3)
    for wrong, k in ((2, 2), (2, None), ([1, 2], 1)):
        with pytest.raises(ValueError, match=r"^condition: expected shape"):
            check_condition(wrong, 3, k)


def test_score_says_how_a_condition_is_given(trained):
    with pytest.raises(ValueError, match=r"^condition: .* score\(X, condition=C\); got it as y"):
        trained("conditional").score(CONDITIONED, CONDITIONS)


def test_one_condition_for_all_points_only_once_its_width_is_known():
    np.testing.assert_array_equal(check_condition([1, 2], 3, 2), [[1, 2]] * 3)
    with pytest.raises(ValueError, match=r"^condition: expected shape \(3, k\)"):
        check_condition([1, 2], 3)
    assert check_weight(None, 3) is None


def test_a_constant_column_is_only_centred():
    scaler = DataRows(X, None, np.full((N, 1), 7.0)).condition_scaler()
    assert (scaler.mean, scaler.scale) == (7.0, 1.0)


def test_the_split_keeps_rows_together():
    rows = DataRows(X, np.arange(N) + 1.0, C)
    train, held = rows.split(0.25, 3)
    assert (len(train.x), len(held.x)) == (150, 50)
    for part in (train, held):
        index = part.weight.astype(int) - 1
        np.testing.assert_array_equal(part.x, X[index])
        np.testing.assert_array_equal(part.condition, C[index])
    whole, none = rows.split(0.001, 3)
    assert whole is rows
    assert none is None
