"""fit_unnormalised: log Z and moments known exactly, bounds, bad log-densities, files."""

import io
import math
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from otflow import Posterior, fit_unnormalised, load
from otflow.data.preprocessing import ColumnMap
from otflow.estimator.unnormalised import covering_gaussian
from otflow.flow.unnormalised import LogDensity, OnLine
from otflow.support.precision import precision

QUICK = {"width": 4, "n_steps": 1, "max_iter": 25, "batch_size": 64, "verbose": False}
MEAN, SD, CONSTANT = jnp.array([40.0, -3.0]), jnp.array([5.0, 0.01]), 7.0


def gaussian(x):
    return CONSTANT - 0.5 * jnp.sum(((x - MEAN) / SD) ** 2)


def gamma_and_beta(x):
    """Gamma(3, rate 2) and Beta(2, 5), without their constants."""
    return jnp.sum(jnp.stack([2 * jnp.log(x[0]) - 2 * x[0], jnp.log(x[1]) + 4 * jnp.log1p(-x[1])]))


@pytest.fixture(scope="module")
def found():
    return fit_unnormalised(gaussian, 2, names=["a", "b"], **QUICK)


@pytest.fixture(scope="module")
def bounded():
    """Longer: its law on the line is no Gaussian."""
    bounds = {"rate": (0, None), "share": (0, 1)}
    names = ["rate", "share"]
    return fit_unnormalised(
        gamma_and_beta, 2, names=names, bounds=bounds, **QUICK | {"n_steps": 2, "max_iter": 150}
    )


def test_of_a_gaussian_the_figures_are_exact(found):
    """log Z = 7 + log(2 pi 5 0.01); 25 steps leave the start's exact Gaussian near itself."""
    exact = CONSTANT + math.log(2 * math.pi * 0.05)
    low, high = found.summary.line("log Z").interval
    assert low < exact < high
    assert high - low < 0.02
    assert found.summary.lower_bound <= exact
    assert found.summary.kl < 0.01
    assert found.summary.findings == ()
    x = found.sample(4000, seed=2)
    assert np.allclose(x.mean(axis=0), MEAN, atol=0.1 * np.asarray(SD))
    assert np.allclose(x.std(axis=0), SD, rtol=0.08)


@pytest.mark.slow
def test_bounds_are_those_of_the_parameters(bounded):
    """log Z = log Gamma(3) - 3 log 2 + log B(2, 5) with no Jacobian given; means 3/2 and 2/7."""
    exact = math.log(2) - 3 * math.log(2) - math.log(30)
    low, high = bounded.summary.line("log Z").interval
    assert low < exact < high
    assert bounded.summary.lower_bound < exact
    drawn = bounded.weighted(4000, seed=2)
    assert (drawn.points > 0).all()
    assert (drawn.points[:, 1] < 1).all()
    w = np.exp(drawn.log_weight)
    assert np.allclose(w @ drawn.points / w.sum(), [1.5, 2 / 7], rtol=0.05)
    chains = bounded.metropolis(1000, chains=4, seed=3)
    assert chains.points.shape == (4, 1000, 2)
    assert np.allclose(chains.points.mean(axis=(0, 1)), [1.5, 2 / 7], rtol=0.08)
    assert 0.8 < chains.acceptance <= 1
    with pytest.raises(ValueError, match=r"share \(1\)"):
        bounded.log_prob([[1.0, 2.0]])


@pytest.mark.slow  # test_pushed_normal.py has the scores, test_evidence.py the line
def test_the_convex_bound_holds_and_is_proved(found):
    """-log p has its least second derivative 1 / 5^2 everywhere."""
    line = found.kl_bound(1 / 25)
    assert line.label == "proved (95 %)"
    assert line.interval[1] >= found.summary.kl
    with pytest.raises(ValueError, match="convexity"):
        found.kl_bound(0.0)


@pytest.mark.slow
def test_natural_steps_do_no_harm_to_scales_far_apart():
    """A Gaussian of condition number 1e4, turned: the flow has next to nothing left to do."""
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    precision_ = jnp.asarray(turn @ np.diag([1.0, 1e-4]) @ turn.T)

    def ill(x):
        return -0.5 * x @ precision_ @ x

    plain, natural = (fit_unnormalised(ill, 2, **QUICK, natural_iter=n) for n in (0, 20))
    assert natural.training["natural_history"]["iteration"] == [0, 10, 20]
    assert sum(natural.training["natural_history"]["failed"]) == 0
    assert natural.summary.kl < plain.summary.kl + 1e-4
    low, high = natural.summary.line("log Z").interval
    assert low < math.log(2 * math.pi * 100) < high
    assert natural.status == "max_iter"


def test_one_seed_gives_one_posterior(found):
    again = fit_unnormalised(gaussian, 2, names=["a", "b"], **QUICK)
    assert np.array_equal(again.sample(50, 1), found.sample(50, 1))
    assert not np.array_equal(found.sample(50, 2), found.sample(50, 1))


def test_a_file_keeps_the_law_but_not_the_log_density(found, tmp_path):
    path = tmp_path / "posterior.otflow"
    found.save(path)
    bare, whole = Posterior.load(path), Posterior.load(path, gaussian)
    assert np.array_equal(bare.sample(20, 1), found.sample(20, 1))
    assert np.array_equal(bare.log_prob(bare.sample(20)), found.log_prob(found.sample(20)))
    assert bare.names == ("a", "b")
    np.testing.assert_equal(bare.training, found.training)  # NaN in the first row
    assert np.array_equal(whole.weighted(20).log_weight, found.weighted(20).log_weight)
    with pytest.raises(ValueError, match="log_density: expected"):
        bare.weighted(5)
    assert "a, b" in bare._repr_html_()
    with pytest.raises(ValueError, match="not a readable otflow model"):
        load(path)
    (tmp_path / "other").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="not a readable posterior"):
        Posterior.load(tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        Posterior.load(tmp_path / "none")


def test_it_shows_itself_in_a_terminal_and_a_notebook(found):
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(found)
    text, html = console.export_text(), found._repr_html_()
    for word in ("log Z", "Pareto k", "effective sample size", "+-", "proved (95 %)"):
        assert word in text
        assert word in html


def test_chains_go_to_arviz(found):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("arviz")
    data = found.to_arviz(50, chains=2)
    assert dict(data.posterior.sizes) == {"chain": 2, "draw": 50}
    assert set(data.posterior.data_vars) == {"a", "b"}


@pytest.mark.parametrize("distance", [6.0, 10.0])
def test_a_wider_start_reaches_both_of_two_modes(distance):
    """N(+-distance / 2, I) in the plane: the nearest Gaussian has one, the start taken both."""

    def two(x):
        r = distance / 2
        return jnp.logaddexp(-0.5 * jnp.sum((x - r) ** 2), -0.5 * jnp.sum((x + r) ** 2))

    with precision("float64"):
        known = OnLine(LogDensity(two, 2), ColumnMap.identity(2))
        start, log_z = covering_gaussian(known, np.zeros(2), np.ones(2), 0)
    assert log_z == pytest.approx(math.log(4 * math.pi), abs=0.3)
    assert np.linalg.svd(start.factor)[1][0] > 0.5 * distance


@pytest.mark.parametrize(
    ("function", "told"),
    [
        pytest.param(lambda x: jnp.log(x[0]) - x[1] ** 2, "Give bounds", id="NaN"),
        pytest.param(lambda x: jnp.where(x[0] > 0, 0.0, -jnp.inf), "finite values", id="support"),
        pytest.param(lambda x: -jnp.sum(jnp.sqrt(jnp.abs(x * 0))), "finite gradients", id="slope"),
        pytest.param(lambda x: -(x[0] ** 2) + 0 * x[1], "grow without end", id="flat"),
        pytest.param(lambda x: jnp.sum(x**2), "grow without end", id="upside down"),
        pytest.param(lambda x: (-x * x).astype(jnp.float32).sum(), "expected float64", id="dtype"),
    ],
)
def test_log_densities_that_are_none_are_refused(function, told):
    with pytest.raises(ValueError, match=f"log_density: .*{told}"):
        fit_unnormalised(function, 2, **QUICK)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"dim": 0}, ValueError, "dim"),
        ({"names": ["a"]}, ValueError, "names"),
        ({"names": ["a", "a"]}, ValueError, "names"),
        ({"bounds": {"c": (0, 1)}}, ValueError, "bounds"),
        ({"bounds": {0: (1, 0)}}, ValueError, "bounds"),
        ({"scale": 0.0}, ValueError, "scale"),
        ({"start": [1.0]}, ValueError, "start"),
        ({"alpha": -1.0}, ValueError, "alpha"),
        ({"n_steps": 0}, ValueError, "n_steps"),
        ({"natural_iter": -1}, ValueError, "natural_iter"),
        ({"seed": -1}, ValueError, "seed"),
        ({"dtype": "float16"}, ValueError, "dtype"),
        ({"checkpoints": "x"}, TypeError, "checkpoints"),
        ({"resume": True}, ValueError, "resume: expected a checkpoint"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_before_any_compute(options, error, told):
    dim = options.pop("dim", 2)
    with pytest.raises(error, match=told):
        fit_unnormalised(None, dim, **options)


@pytest.mark.parametrize("call", ["sample", "weighted", "evidence", "metropolis"])
def test_bad_numbers_of_draws_are_refused(found, call):
    with pytest.raises((TypeError, ValueError), match="n: expected"):
        getattr(found, call)(0)
    with pytest.raises((TypeError, ValueError), match="seed: expected"):
        getattr(found, call)(10, seed=-1)
