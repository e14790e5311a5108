"""OTFlow on bounded and rounded columns: densities in the data's own units, samples in bounds."""

import importlib
import math
from pathlib import Path

import numpy as np
import polars
import pytest
from scipy import stats

import otflow
from otflow.certificates import certify_model
from otflow.estimator.estimator import OTFlow
from otflow.flow.normalisation import Integral
from otflow.targets import StandardNormal
from tests.fakes import no_training

# one step of the Gaussian solution is exact where the data behind the transforms is Gaussian;
# at alpha = 1e4 it is the fitted Gaussian to 1e-4
START = {
    "alpha": 1e4,
    "width": 2,
    "depth": 0,
    "n_steps": 1,
    "scheme": "conforming",
    "max_iter": 1,
    "validation_fraction": 0.0,
    "random_state": 0,
    "verbose": False,
    "dtype": "float64",
}
RNG = np.random.default_rng(0)
# 300 or 2,000 rows a call where it does not matter how many: other numbers are other programs


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Estimators keep their starting potential, the Gaussian solution."""
    no_training(monkeypatch)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def mid_points(low, high, count=20001):
    edges = np.linspace(low, high, count)
    return (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]


@pytest.mark.parametrize(
    ("bounds", "draw", "grid"),
    [
        pytest.param((2.0, None), 2 + RNG.lognormal(0.3, 0.4, 400), (2.0, 30.0), id="log"),
        pytest.param((None, 5.0), 5 - RNG.lognormal(0.3, 0.4, 400), (-23.0, 5.0), id="from above"),
        pytest.param((-1.0, 3.0), 4 * RNG.beta(2, 3, 400) - 1, (-1.0, 3.0), id="logit"),
    ],
)
def test_the_density_integrates_to_one(bounds, draw, grid):
    """Midpoint sums over the support, 20,000 cells: 1e-4."""
    model = OTFlow(**START, bounds={0: bounds}).fit(draw[:, None])
    x, width = mid_points(*grid)
    assert np.exp(model.score_samples(x[:, None])).sum() * width == pytest.approx(1, abs=1e-4)


def test_lognormal_data_against_scipy(rng):
    """The Gaussian solution behind a log is the lognormal density of the logs' moments, but for
    ridges and terms that are silent to 8e-5 at the start: 1e-2 (measured: 4e-3)."""
    x = rng.lognormal(1.0, 0.5, 2000)
    model = OTFlow(**START, bounds={0: (0, None)}).fit(x[:, None])
    logs = np.log(x)
    expected = stats.lognorm.logpdf(x, logs.std(), scale=math.exp(logs.mean()))
    np.testing.assert_allclose(model.score_samples(x[:, None]), expected, atol=1e-2)
    # 4,000 draws: error rate 1e-3, fixed seeds
    draws = np.concatenate([model.sample(2000, random_state=seed)[:, 0] for seed in (0, 1)])
    assert (
        stats.kstest(draws, stats.lognorm(logs.std(), scale=math.exp(logs.mean())).cdf).pvalue
        > 1e-3
    )


def test_heavy_tails_against_scipy(rng, tmp_path):
    """As for a model of the mapped column, and the slope in closed form, out to 1e200: 1e-10.

    Near the rows also Johnson's SU density of the mapped rows' moments, to the 1e-2 of the start.
    """
    x = 1e4 + 300 * rng.standard_t(1.0, 2000)
    model = OTFlow(**START, arcsinh={"x0": None}).fit(x[:, None])
    ((centre, scale),) = model.column_map_.arcsinh
    y = np.arcsinh((x - centre) / scale)
    by_hand = OTFlow(**START).fit(y[:, None])
    far = centre + scale * np.array([40.0, -1e6, 1e30, -1e200])
    rows = np.concatenate([x[:1996], far])
    slope = -np.log(np.hypot(scale, rows - centre))
    inner = by_hand.score_samples(np.arcsinh((rows - centre) / scale)[:, None])
    np.testing.assert_allclose(model.score_samples(rows[:, None]), inner + slope, rtol=1e-10)
    johnson = stats.johnsonsu(-y.mean() / y.std(), 1 / y.std(), centre, scale)
    near = np.abs(y) < 3
    expected = johnson.logpdf(x[near])
    np.testing.assert_allclose(model.score_samples(x[:, None])[near], expected, atol=1e-2)
    assert np.isfinite(model.sample(2000)).all()
    model.save(tmp_path / "m.otflow")
    again = otflow.load(tmp_path / "m.otflow")
    assert (again.column_map_, again.arcsinh) == (model.column_map_, {"x0": None})
    assert np.array_equal(again.score_samples(x[:, None]), model.score_samples(x[:, None]))


def test_log_density_is_the_change_of_variables_of_transform(rng):
    """Jacobian of `transform` by central differences, h = 1e-6: 1e-6."""
    X = np.column_stack([rng.lognormal(size=300), rng.beta(2, 2, 300), rng.normal(size=300)])
    model = OTFlow(**START, bounds={0: (0, None), 1: (0, 1)}).fit(X)
    x, h = X, 1e-6
    columns = [(model.transform(x + s) - model.transform(x - s)) / (2 * h) for s in h * np.eye(3)]
    log_det = np.linalg.slogdet(np.stack(columns, axis=-1)).logabsdet
    expected = stats.norm.logpdf(model.transform(x)).sum(axis=1) + log_det
    np.testing.assert_allclose(model.score_samples(x), expected, atol=1e-6)
    np.testing.assert_allclose(model.inverse_transform(model.transform(x)), x, rtol=1e-8)


def test_outside_the_bounds(rng):
    """The density is zero there, quietly; what needs a value is refused by name and count."""
    frame = polars.DataFrame({"age": rng.normal(size=50), "share": rng.random(50)})
    settings = START | {"bounds": {"share": (0, 1)}}
    model = OTFlow(**settings).fit(frame)
    rows = polars.DataFrame({"age": [0.0, 0.0, 0.0, 0.0], "share": [0.5, 1.0, -2.0, 0.4]})
    scores = model.score_samples(rows)
    assert np.isneginf(scores).tolist() == [False, True, True, False]
    assert np.array_equal(scores[[0, 3, 3]], model.score_samples(rows[[0, 3, 3]]))
    assert np.isneginf(model.score_samples(rows[1:3])).all()
    told = (
        f"2 of 4 rows have no density: .* -inf; that of the others is {scores[[0, 3]].mean():.4f}"
    )
    with pytest.warns(UserWarning, match=told):
        assert np.isneginf(model.score(rows))
    message = r"strictly between the bounds.*, share \(2\)"
    for use in (model.transform, OTFlow(**settings).fit, lambda r: model.fit(frame, X_val=r)):
        with pytest.raises(ValueError, match=message):
            use(rows)


def test_samples_stay_in_bounds_and_on_the_grid(rng):
    counts = rng.poisson(0.7, 400)
    X = np.column_stack([counts, rng.beta(0.4, 0.4, 400), rng.normal(size=400).round(1)])
    model = OTFlow(**START, bounds={0: (0, None), 1: (0, 1)}, dequantize="auto").fit(X)
    assert model.column_map_.step == (1.0, 0.0, 0.1)
    draws = np.concatenate([model.sample(300, random_state=seed) for seed in range(10)])
    assert set(draws[:, 0]) >= {0.0, 1.0, 2.0}
    assert (draws[:, 0] == np.rint(draws[:, 0])).all()
    assert draws[:, 0].min() == 0
    assert ((draws[:, 1] > 0) & (draws[:, 1] < 1)).all()
    assert np.array_equal(draws[:, 2], draws[:, 2].round(1))
    assert np.isfinite(model.score_samples(draws)).all()


@pytest.mark.filterwarnings("ignore:X. column")
def test_training_sees_noise_within_a_cell(rng):
    """Standardisation uses the noisy rows: the variance of U(-s/2, s/2) is s^2 / 12."""
    X = 4.0 * rng.integers(0, 3, (20000, 1))
    plain, noisy = (OTFlow(**START, dequantize=step).fit(X) for step in (None, 4.0))
    added = noisy.standardizer_.scale[0] ** 2 - plain.standardizer_.scale[0] ** 2
    assert added == pytest.approx(16 / 12, rel=0.1)
    assert noisy.standardizer_.mean[0] == pytest.approx(X.mean(), abs=0.05)
    again = OTFlow(**START, dequantize=4.0).fit(X)
    assert again.standardizer_.mean == noisy.standardizer_.mean


@pytest.mark.filterwarnings("ignore:X. column")
def test_values_off_the_grid_are_refused(rng):
    X = rng.integers(0, 9, (50, 2)).astype(float)
    X[3, 1] = 0.5
    with pytest.raises(ValueError, match=r"multiples of the rounding step.*x1 \(1\)"):
        OTFlow(**START, dequantize=1).fit(X)
    model = OTFlow(**START, dequantize={0: 1}).fit(X)
    with pytest.raises(ValueError, match=r"multiples of the rounding step.*x0 \(1\)"):
        model.log_mass_bound([[0.25, 0.0]])


@pytest.fixture(name="counts")
def fitted_to_counts(rng):
    """A model of integers 0, 1, 2, ... with a log transform."""
    return OTFlow(**START, bounds={0: (0, None)}, dequantize="auto").fit(
        rng.poisson(3.0, (500, 1)).astype(float)
    )


def test_the_masses_of_all_values_sum_to_one(counts):
    """exp(log_mass_bound) with many draws is P; 10 rows a value, 52 draws a row: 0.015 (five
    standard errors)."""
    values = np.tile(np.arange(200.0), 10)[:, None]
    masses = np.exp(counts.log_mass_bound(values, n_draws=52)) / 10
    assert masses.sum() == pytest.approx(1, abs=0.015)


def test_the_mass_is_the_integral_of_the_density_over_the_cell(counts):
    """Against a midpoint sum of exp(score_samples); 2,000 rows of 8 draws: 0.03."""
    for value in (0.0, 1.0, 4.0):
        x, width = mid_points(value - 0.5, value + 0.5, 2001)
        mass = np.exp(counts.score_samples(x[:, None])).sum() * width
        rows = np.full((2000, 1), value)
        found = np.exp(counts.log_mass_bound(rows, n_draws=8)).mean()
        assert found == pytest.approx(mass, rel=0.03)


def test_the_bound_is_below_the_mass_and_closer_with_more_draws(counts):
    """At 0, where the density varies most over the cell: 1.4 nats below with one draw, 0.04 with
    eight; the means of 2,000 rows have standard errors below 0.05 and 0.01."""
    x, width = mid_points(-0.5, 0.5, 2001)
    log_mass = math.log(np.exp(counts.score_samples(x[:, None])).sum() * width)
    rows = np.zeros((2000, 1))
    one, eight = (counts.log_mass_bound(rows, n_draws=k).mean() for k in (1, 8))
    assert one < log_mass - 1
    assert log_mass - 0.1 < eight < log_mass


def test_the_middle_of_a_cell_is_close_to_its_mass(rng):
    """score_samples + log step against the mass of the normal cell, curvature of second order;
    means over 285 rows a value, 16 draws a row: 2e-3."""
    X = rng.normal(0, 20, (2000, 1)).round()
    model = OTFlow(**START, dequantize="auto").fit(X)
    rows = np.tile(np.arange(-30.0, 31.0, 10), 285)[:, None]
    bound = model.log_mass_bound(rows, n_draws=16).reshape(285, 7).mean(axis=0)
    np.testing.assert_allclose(model.score_samples(rows)[:7], bound, atol=2e-3)


def test_columns_that_are_not_rounded_count_with_their_density(rng):
    """Independent columns: the bound is log mass of the one plus log density of the other; 24 rows
    a value, 11 draws a row: 0.02."""
    X = np.column_stack([rng.integers(0, 5, 900), rng.normal(size=900)])
    model = OTFlow(**START, dequantize={0: 1}).fit(X)
    rows = np.tile(np.column_stack([np.arange(-40.0, 45), np.full(85, 0.3)]), (24, 1))
    total = np.log(np.exp(model.log_mass_bound(rows, n_draws=11)).sum() / 24)
    assert total == pytest.approx(stats.norm.logpdf(0.3, X[:, 1].mean(), X[:, 1].std()), abs=0.02)


def test_impossible_values_have_no_mass(counts):
    rows = np.resize([-1.0, 2.0], (2000, 1))
    assert (np.isneginf(counts.log_mass_bound(rows)) == (rows[:, 0] < 0)).all()


def test_no_rounded_column_no_mass(rng):
    model = OTFlow(**START).fit(rng.normal(size=(20, 1)))
    with pytest.raises(ValueError, match="dequantize: expected rounded columns"):
        model.log_mass_bound([[0.0]])
    with pytest.raises(TypeError, match="n_draws: expected an integer >= 1"):
        model.log_mass_bound([[0.0]], n_draws=1.5)


def test_a_density_takes_no_column_transforms():
    for name, value in (("bounds", {0: (0, 1)}), ("dequantize", "auto")):
        with pytest.raises(ValueError, match=f"^{name}: expected None with a density"):
            OTFlow(**START, **{name: value}).fit_density(StandardNormal(1))


def test_certificates_see_the_transformed_rows(monkeypatch, rng):
    """Logs of the rows, standardised; rounded columns with noise, so no row twice."""
    asked = []
    module = importlib.import_module("otflow.certificates.certify")
    monkeypatch.setattr(
        module, "certify", lambda flow, rows, **options: asked.append((rows, options))
    )
    X = np.column_stack([rng.lognormal(size=300), rng.integers(0, 4, 300)])
    model = OTFlow(**START, bounds={0: (0, None)}, dequantize={1: 1.0}).fit(X)
    certify_model(model, X, X_holdout=X[:50])
    rows, options = asked[0]
    np.testing.assert_allclose(rows[:, 0].mean(), 0, atol=1e-12)
    np.testing.assert_allclose(rows[:50, 0], options["X_holdout"][:, 0])
    assert len(np.unique(rows[:, 1])) == 300
    assert options["space"] == "the standardised columns"
    with pytest.raises(ValueError, match="strictly between"):
        certify_model(model, -X)


# --- files ---------------------------------------------------------------------------------


def test_a_file_of_version_0_1_0_loads_with_the_same_densities():
    """Written before there were column transforms; the numbers are those of that version."""
    model = otflow.load(Path(__file__).parents[1] / "saved" / "version-0.1.0.otflow")
    rows = polars.DataFrame({"height": [5.0, 3.0, 9.0], "weight": [-1.0, -0.5, 0.25]})
    expected = [-1.8525812390860852, -3.5699461463507944, -4.734766817432337]
    model.integral_ = Integral(1.0, 0.0)  # those files do not hold it: test_normalisation.py
    np.testing.assert_allclose(model.score_samples(rows), expected, rtol=1e-6)
    draws = [[4.473946566179857, -0.82717312472617], [2.651544365694956, -1.9719638036430949]]
    np.testing.assert_allclose(model.sample(2), draws, rtol=1e-5)
    assert model.column_map_.is_identity
    assert (model.bounds, model.dequantize, model.warm_start) == (None, None, False)
    assert model.n_iter_ == 0


def test_a_file_keeps_the_column_map(tmp_path, rng):
    X = np.column_stack([rng.lognormal(size=2000).round(1) + 0.1, rng.random(2000)])
    settings = START | {"bounds": {0: (0, None), "x1": (0, np.inf)}, "dequantize": {0: 0.1}}
    model = OTFlow(**settings).fit(X)
    model.save(tmp_path / "model.otflow")
    again = otflow.load(tmp_path / "model.otflow")
    assert again.column_map_ == model.column_map_
    assert again.bounds == model.bounds
    for method in ("score_samples", "transform", "log_mass_bound"):
        assert np.array_equal(getattr(again, method)(X), getattr(model, method)(X))
    assert np.array_equal(again.sample(5), model.sample(5))


def test_a_model_without_column_transforms_writes_none(tmp_path, rng):
    """So its file is read by versions that know of none, but for the names of the settings."""
    OTFlow(**START).fit(rng.normal(size=(20, 1))).save(tmp_path / "model.otflow")
    assert b"column_map" not in (tmp_path / "model.otflow").read_bytes()
