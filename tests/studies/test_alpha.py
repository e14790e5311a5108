"""The alpha study: its summary on cells made by hand; one small real run, killed and resumed."""

import dataclasses
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from otflow.studies import result as results
from otflow.studies.alpha import AlphaStudy, alpha_study
from otflow.studies.alpha_summary import summarise_alpha
from otflow.studies.members import Network
from otflow.studies.problems import DataProblem, make_problem
from otflow.studies.runner import load_study
from otflow.studies.store import Store
from otflow.training.ensemble import EnsembleConfig
from tests.studies.fakes import cell, evidence, failed, verdicts

ROOT = Path(__file__).resolve().parents[2]
ALPHAS = (1.0, 3.0, 10.0, 30.0, 100.0)
SETTINGS = {"kind": "alpha", "problem": "hand-made", "dim": 2}
LIMIT, C = 5.0, 0.5  # J* = LIMIT - C / (alpha + 1): smooth and concave, rate constant C

MONOTONE = {
    "transport increases with alpha",
    "KL decreases with alpha",
    "J increases with alpha",
}
BOUNDS = {"J <= 1/2 W2^2, that is alpha KL <= 1/2 W2^2 - transport", "J >= J*_alpha"}
ENVELOPE = "envelope: dJ/dalpha = KL, bracketed between neighbours"
RATES = {
    "KL falls like alpha^-2 (slope -2 to within 0.2)",
    "1/2 W2^2 - J falls like alpha^-1 (slope -1 to within 0.15)",
    "the map's distance to the OT map falls like alpha^-1 (slope -1 to within 0.2)",
    "transport + 2 alpha KL approaches 1/2 W2^2 like alpha^-2 (slope -2 to within 0.2)",
}
KL_FALLS = "KL falls like alpha^-2 (slope -2 to within 0.2)"
SECOND_ORDER = "transport + 2 alpha KL approaches 1/2 W2^2 like alpha^-2 (slope -2 to within 0.2)"
SEEN = RATES - {SECOND_ORDER}
RECOVERY = "recovery sequence: the OT map has J = 1/2 W2^2 at every alpha, to within 1 %"


def exact(alpha, slope=-1.0):
    """The answer of a problem with J* = LIMIT - C alpha^slope, by the envelope identity."""
    kl = -slope * C * alpha ** (slope - 1)
    objective = LIMIT - C * alpha**slope
    return {"transport": objective - alpha * kl, "kl": kl, "objective": objective}


def ideal(alpha, seed=0, gap=None, se=1e-12, slope=-1.0, **changes):
    """A cell whose flow is the exact minimiser, up to `gap` in J (all in the transport)."""
    gap = 1e-5 * C * alpha ** (2 * slope) if gap is None else gap
    v = exact(alpha, slope)
    known = {f"exact_{k}": value for k, value in v.items()}
    known |= {"exact_half_w2_squared": LIMIT, "exact_rate_constant": C}
    known["exact_ot_error"] = alpha**slope
    v["transport"] += gap
    v["objective"] += gap
    v["limit_estimate"] = LIMIT - 0.3 * alpha ** (2 * slope)
    known["exact_transport"] = v["limit_estimate"] - 2 * alpha * v["kl"]
    v["map_error"], v["ot_error"] = 1e-3, 2 * alpha**slope
    noise = {f"{k}_se": se * abs(x) for k, x in v.items()}
    noise["limit_estimate_se"] = se * alpha**-2
    values = {**v, **noise, **known, "invalid": 0.0, **changes}
    return cell({"alpha": alpha, "seed": seed}, values, seed)


def recovery(kl=0.0, se=1e-4):
    values = {"transport": LIMIT, "transport_se": se, "kl": kl, "kl_se": se / 1000}
    return cell({"alpha": 100.0}, values | {"half_w2_squared": LIMIT}, id="recovery")


def summary(cells, planned=None):
    return summarise_alpha(SETTINGS, cells, planned)


def sweep(**changes):
    """Two replicates an alpha, equal to within rounding."""
    return [ideal(alpha, seed, **changes) for alpha in ALPHAS for seed in (0, 1)]


class TestExactProblem:
    def test_everything_holds_for_exact_minimisers(self):
        found = summary([*sweep(), recovery()], planned=11)
        assert verdicts(found) == dict.fromkeys(
            MONOTONE | BOUNDS | RATES | {ENVELOPE, RECOVERY}, "holds"
        )
        assert (found.cells, found.planned, found.failed, found.x_name) == (11, 11, [], "alpha")

    def test_table(self):
        found = summary(sweep())
        assert [row["alpha"] for row in found.rows] == list(ALPHAS)
        row = found.rows[2]
        assert row["replicates"] == 2
        assert row["kl"] == pytest.approx(C / 100)
        assert row["exact_objective"] == pytest.approx(LIMIT - C / 10)
        assert row["objective"] == pytest.approx(LIMIT - C / 10, abs=1e-6)
        assert row["half_w2_squared"] == LIMIT
        assert row["alpha_kl"] == pytest.approx(C / 10)
        assert row["bound"] == pytest.approx(2 * C / 10, abs=1e-6)  # 1/2 W2^2 - transport
        assert row["kl_error"] == pytest.approx(1e-12 * row["kl"])
        assert set(found.columns) <= set(row)
        assert {"kl", "exact_kl", "map_error", "ot_error", "limit_estimate"} <= set(found.columns)

    def test_series(self):
        found = {s.name: s for s in summary(sweep()).series}
        assert list(found) == ["kl", "value_gap", "ot_error", "limit_error"]
        a = np.array(ALPHAS)
        for name, factor, slope in (
            ("kl", C, -2),
            ("value_gap", C, -1),
            ("ot_error", 2, -1),
            ("limit_error", 0.3, -2),
        ):
            s = found[name]
            assert s.x == list(ALPHAS)
            np.testing.assert_allclose(s.mean, factor * a**slope, rtol=2e-5)
            assert s.expected == slope
            assert s.slope == pytest.approx(slope, abs=1e-5)
            assert math.exp(s.intercept) == pytest.approx(factor, rel=1e-4)
        np.testing.assert_allclose(found["kl"].exact, C * a**-2)
        np.testing.assert_allclose(found["value_gap"].exact, C / a)
        np.testing.assert_allclose(found["ot_error"].exact, 1 / a)
        np.testing.assert_allclose(found["limit_error"].exact, 0.3 * a**-2, rtol=1e-9)

    def test_evidence_names_the_exact_slope(self):
        assert "exact values over the same alphas have slope -2.000" in evidence(
            summary(sweep()), "KL falls"
        )

    def test_other_rates_are_violated(self):
        """J* = 1/2 W2^2 - C alpha^-1/2: every slope is half of the theory's."""
        found = verdicts(summary(sweep(slope=-0.5)))
        assert {found[claim] for claim in RATES - {KL_FALLS}} == {"violated"}
        assert found[KL_FALLS] == "violated"  # -1.5
        assert {found[claim] for claim in MONOTONE} == {"holds"}

    def test_large_errors_resolve_nothing(self):
        found = verdicts(summary(sweep(se=3.0)))
        assert set(found.values()) == {"not resolved"}

    def test_one_replicate_without_noise_resolves_no_rate(self):
        found = verdicts(summary([ideal(alpha, se=0.0) for alpha in ALPHAS]))
        assert {found[claim] for claim in RATES} == {"not resolved"}

    @pytest.mark.parametrize(
        ("claim", "alpha", "changes"),
        [
            ("transport increases with alpha", 10.0, {"transport": 1.0}),
            ("KL decreases with alpha", 10.0, {"kl": 0.4}),
            ("J increases with alpha", 10.0, {"objective": 4.6}),
            ("J >= J*_alpha", 10.0, {"objective": 4.9}),
            ("J <= 1/2 W2^2, that is alpha KL <= 1/2 W2^2 - transport", 1.0, {"objective": 5.1}),
            (ENVELOPE, 100.0, {"transport": 5.05}),
        ],
    )
    def test_one_wrong_alpha_violates(self, claim, alpha, changes):
        cells = [
            ideal(a, seed, **(changes if a == alpha else {})) for a in ALPHAS for seed in (0, 1)
        ]
        found = summary(cells)
        assert verdicts(found)[claim] == "violated"
        assert f"{alpha:g}" in evidence(found, claim)

    @pytest.mark.parametrize(("kl", "verdict"), [(0.0, "holds"), (0.01, "violated")])
    def test_recovery(self, kl, verdict):
        found = summary([*sweep(), recovery(kl)])
        assert verdicts(found)[RECOVERY] == verdict
        wide = summary([*sweep(), recovery(se=0.1)])
        assert verdicts(wide)[RECOVERY] == "not resolved"


class TestExclusion:
    """A flow that is far from J* says nothing about the theory's rates."""

    def cells(self, *gaps):
        """The gap of each alpha as a share of 1/2 W2^2 - J*."""
        return [
            ideal(alpha, seed, gap=share * C / alpha)
            for alpha, share in zip(ALPHAS, gaps, strict=True)
            for seed in (0, 1)
        ]

    def test_alphas_with_a_large_gap_are_left_out_and_named(self):
        found = summary(self.cells(0, 0.09, 0, 0.11, 0.5))
        for claim in SEEN:
            assert "30 (J - J* is 11 % of what is left), 100 (J - J* is 50 %" in evidence(
                found, claim
            )
            assert "3 points" in evidence(found, claim)
        assert verdicts(found)[KL_FALLS] == "holds"
        for series in found.series:  # drawn nevertheless
            assert series.x == list(ALPHAS)
        assert [row["alpha"] for row in found.rows] == list(ALPHAS)

    def test_fewer_than_three_resolve_nothing(self):
        found = summary(self.cells(0, 0, 0.2, 0.3, 0.4))
        for claim in RATES:
            assert verdicts(found)[claim] == "not resolved"
            assert evidence(found, claim).startswith("fewer than three alphas can be used; left")
        assert all(s.slope is None for s in found.series)

    def test_a_gap_beyond_the_whole_room(self):
        """1/2 W2^2 - J < 0: the fit leaves such points out, and says so."""
        found = summary(self.cells(0, 0, 0, 0, 1.5))
        assert "J - J* is 150 % of what is left" in evidence(found, "1/2 W2^2 - J falls")
        far = summary(self.cells(0, 0, 0, 0, 4977.3))
        assert "J - J* is 4,977 times what is left" in evidence(far, "1/2 W2^2 - J falls")
        claim = "J <= 1/2 W2^2, that is alpha KL <= 1/2 W2^2 - transport"
        assert verdicts(found)[claim] == "violated"

    def test_the_second_order_estimate_asks_for_a_smaller_gap(self):
        """0.09 C / 3 is small against C / 3, and half of the 0.3 / 9 that the estimate misses."""
        found = summary(self.cells(0, 0.09, 0, 0, 0))
        assert "3 (J - J* is 45 % of what is left)" in evidence(found, SECOND_ORDER)
        assert "4 points" in evidence(found, SECOND_ORDER)
        assert "left out" not in evidence(found, "KL falls")

    def test_noise_and_points_that_are_not_invertible(self):
        cells = [c for c in sweep() if c.inputs["alpha"] < 30]
        cells += [ideal(30.0, seed, se=10.0) for seed in (0, 1)]
        cells += [ideal(100.0, seed, invalid=2.0) for seed in (0, 1)]
        found = summary(cells)
        assert {verdicts(found)[claim] for claim in BOUNDS} == {"not resolved"}
        assert "4 points" in evidence(found, "J >= J*_alpha")
        text = evidence(found, "KL falls")
        assert "30 (noise), 100 (not invertible at 4 points)" in text


class TestFailedCells:
    def test_they_are_listed_and_the_rest_is_used(self):
        cells = [c for c in sweep() if c.inputs != {"alpha": 10.0, "seed": 1}]
        found = summary([*cells, failed({"alpha": 10.0, "seed": 1})], planned=10)
        assert found.failed == [("{'alpha': 10.0, 'seed': 1},0", "diverged")]
        assert found.rows[2]["replicates"] == 1
        assert (found.cells, found.planned) == (10, 10)
        assert verdicts(found)[KL_FALLS] == "holds"

    def test_nothing_finished(self):
        found = summary([failed({"alpha": 1.0, "seed": 0})], planned=4)
        assert found.rows == []
        assert set(verdicts(found).values()) <= {"not resolved"}
        assert all(s.x == [] for s in found.series)

    def test_one_alpha(self):
        found = verdicts(summary([ideal(1.0, seed) for seed in (0, 1)]))
        assert {found[claim] for claim in MONOTONE | RATES | {ENVELOPE}} == {"not resolved"}
        assert {found[claim] for claim in BOUNDS} == {"holds"}


class TestData:
    def cells(self, **changes):
        found = []
        for alpha in ALPHAS:
            v = {"transport": LIMIT - 2 * C / alpha, "nll": 1 + C / alpha**2, "invalid": 1.0}
            v["objective"] = v["transport"] + alpha * v["nll"]
            v |= {f"{k}_se": 1e-9 for k in ("transport", "nll", "objective")}
            found.append(cell({"alpha": alpha, "seed": 0}, v | changes))
        return found

    def test_columns_statements_series(self):
        found = summary(self.cells())
        assert found.columns == ("alpha", "transport", "nll", "objective", "invalid")
        assert verdicts(found) == {
            "transport increases with alpha": "holds",
            "nll decreases with alpha": "holds",
            "envelope: dJ/dalpha = nll, bracketed between neighbours": "holds",
        }
        assert [s.name for s in found.series] == ["transport", "nll"]
        assert found.rows[0]["invalid"] == 1
        json.dumps(found.to_dict(), allow_nan=False)

    def test_a_constant_transport_is_not_resolved(self):
        found = verdicts(summary(self.cells(transport=3.0)))
        assert found["transport increases with alpha"] == "not resolved"


class TestResult:
    def test_json_has_no_nan(self):
        """The lone replicate has no interval: infinite numbers become null."""
        found = summary([ideal(alpha, map_error=math.inf, se=0.0) for alpha in ALPHAS])
        text = json.dumps(found.to_dict(), allow_nan=False)
        assert json.loads(text)["rows"][0]["map_error"] is None

    @pytest.mark.parametrize(
        ("mean", "error", "verdict"),
        [
            (1.0, 0.04, "holds"),
            (1.0, 0.06, "not resolved"),
            (1.3, 0.05, "violated"),
            (0.7, 0.05, "violated"),
            (1.3, 0.2, "not resolved"),
            (math.nan, 0.1, "not resolved"),
        ],
    )
    def test_verdict_equal(self, mean, error, verdict):
        """1 +- 0.1 against the interval mean +- 1.96 error."""
        assert results.verdict_equal(mean, error, 1.0, 0.1) == verdict

    def test_error_of_a_mean(self):
        """Student's interval for three replicates: 4.303 s / sqrt(3); common noise on top."""
        values = [1.0, 2.0, 4.0]
        group = results.Group([cell({}, {"v": v, "v_se": 0.3}) for v in values])
        assert group.mean("v") == pytest.approx(7 / 3)
        spread = 4.302653 * np.std(values, ddof=1) / math.sqrt(3) / 1.959964
        assert group.error("v") == pytest.approx(math.hypot(spread, 0.3), rel=1e-6)
        assert math.isnan(group.error("missing"))


class TestSettings:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"alphas": ()}, r"^alphas: expected at least one number; got none"),
            ({"alphas": (1.0, 1.0)}, r"^alphas: expected increasing numbers"),
            ({"alphas": (3.0, 1.0)}, r"^alphas: expected increasing numbers"),
            ({"alphas": (0.0, 1.0)}, r"^alphas: expected a finite number > 0; got 0"),
            ({"alphas": (1.0, math.inf)}, r"^alphas: expected a finite number > 0; got inf"),
            ({"seeds": ()}, r"^seeds: expected distinct integers"),
            ({"seeds": (1, 1)}, r"^seeds: expected distinct integers"),
            ({"seeds": (-1,)}, r"^seeds: expected an integer >= 0; got -1"),
            ({"evaluation": 0}, r"^evaluation: expected an integer >= 1; got 0"),
        ],
    )
    def test_refused(self, changes, message):
        with pytest.raises(ValueError, match=message):
            AlphaStudy(make_problem("gaussian", 1), **changes)

    def test_all_of_them_reach_the_store(self):
        """Two studies that differ in a field have other settings; all are JSON."""
        problem = make_problem("gaussian", 1)
        base = AlphaStudy(problem)
        json.dumps(base.settings(), allow_nan=False)
        for change in (
            {"problem": make_problem("mixture", 1)},
            {"alphas": (1.0,)},
            {"seeds": (5,)},
            {"network": Network(3)},
            {"config": EnsembleConfig(damping=0.1)},
            {"evaluation": 7},
        ):
            assert dataclasses.replace(base, **change).settings() != base.settings()

    def test_units(self):
        exact = AlphaStudy(make_problem("gaussian", 1), alphas=(1.0, 2.0), seeds=(0, 7)).units()
        assert [u.name for u in exact] == ["recovery", "alpha=1", "alpha=2"]
        assert [u.after for u in exact] == [(), (), ("alpha=1",)]
        assert [p.id for p in exact[2].plans] == ["alpha=2,seed=0", "alpha=2,seed=7"]
        data = AlphaStudy(DataProblem(np.arange(9.0)[:, None]), alphas=(1.0,), seeds=(0,)).units()
        assert [u.name for u in data] == ["alpha=1"]

    def test_close_alphas_have_names_of_their_own(self):
        units = AlphaStudy(make_problem("gaussian", 1), alphas=(1000001.0, 1000002.0)).units()
        assert len({u.name for u in units}) == 3
        assert units[2].after == (units[1].name,)


TINY = """
import sys
from pathlib import Path
from otflow.studies.alpha import AlphaStudy
from otflow.studies.members import Network
from otflow.studies.problems import make_problem
from otflow.studies.runner import run_study
from otflow.training.ensemble import EnsembleConfig

study = AlphaStudy(
    make_problem("gaussian", 1),
    alphas=(1.0, 4.0),
    seeds=(0, 1),
    network=Network(width=4),
    config=EnsembleConfig(first_order=0, natural=25, natural_rows=1000, damping=0.01),
    evaluation=2000,
)
folder, resume = Path(sys.argv[1]), sys.argv[2] == "resume"
run_study(study, folder, resume=resume, progress=lambda *heard: print(*heard, flush=True))
"""


def start(folder, how, cache):
    """A process on a study; what it compiled is kept in `cache`, so that the next is quick."""
    command = [sys.executable, "-c", TINY, str(folder), how]
    env = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    errors = (cache / "stderr").open("w")
    with errors:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, env=env
        )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def tiny(cache, tmp_path_factory):
    """The folder of an uninterrupted run, and what it said on its way."""
    folder = tmp_path_factory.mktemp("alpha") / "study"
    process = start(folder, "new", cache)
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0, (cache / "stderr").read_text()
    return folder, out.splitlines()


@pytest.mark.slow
class TestRealRun:
    def test_structure(self, tiny):
        found = load_study(tiny[0])
        assert found.failed == []
        assert found.cells == 5
        assert [row["alpha"] for row in found.rows] == [1, 4]
        assert {s.claim for s in found.statements} == (
            MONOTONE | BOUNDS | RATES | {ENVELOPE, RECOVERY}
        )
        with Store.open(tiny[0]) as store:
            for c in store.cells():
                assert c.id == "recovery" or store.weights_path(c.id).is_file()

    def test_the_gaussian_problem_is_solved(self, tiny):
        """The start is exact, so J is within the noise of J*: 2,000 points, 5 standard errors.

        With that damping the steps do not amplify rounding: the same figures on every JAX.
        """
        for row in load_study(tiny[0]).rows:
            error = max(row["objective_error"], 1e-4)
            assert abs(row["objective"] - row["exact_objective"]) < 5 * error
            assert row["map_error"] < 0.5 * row["ot_error"]
            assert row["invalid"] == 0

    def test_the_optimal_map_costs_half_w2_squared(self, tiny):
        """1/2 W2^2 = (0.5^2 + 0.5^2) / 2; KL = 0 by differences of the map."""
        with Store.open(tiny[0]) as store:
            v = store.cell("recovery").values
        assert v["half_w2_squared"] == pytest.approx(0.25, rel=1e-12)
        assert abs(v["transport"] - 0.25) < 4 * v["transport_se"] < 0.02
        assert abs(v["kl"]) < 1e-6

    @pytest.mark.slow
    def test_killed_twice_and_resumed(self, tiny, tmp_path, cache):
        """kill -9 after a random line of its progress, twice; the table is the same to the bit."""
        folder, lines = tiny
        rng, again, how = random.Random(3), tmp_path / "study", "new"
        for part in (lines[1 : len(lines) // 2], lines[len(lines) // 2 : -1]):
            last = rng.choice(part)
            process = start(again, how, cache)
            for line in process.stdout:
                if line.rstrip("\n") == last:
                    break
            else:
                pytest.fail((cache / "stderr").read_text())
            process.kill()
            with process:
                process.wait(timeout=60)
            assert process.returncode == -9
            how = "resume"
        assert 0 < load_study(again).cells < 5
        process = start(again, "resume", cache)
        process.communicate(timeout=200)
        assert process.returncode == 0, (cache / "stderr").read_text()
        assert load_study(again) == load_study(folder)


def test_data_in_process_with_a_rung_that_fails(monkeypatch):
    """Two alphas on rows; one flow of the first turns bad, that of the second says so."""
    import otflow.studies.runner

    def only_seed_one(flow):
        width = flow.potential.terms[1].weights[0]
        return "made to fail" if np.allclose(width, bad) else None

    problem = DataProblem(np.random.default_rng(0).standard_normal((60, 1)))
    config = EnsembleConfig(first_order=0, natural=0)
    study = {"alphas": (1.0, 2.0), "seeds": (0, 1), "network": Network(2), "config": config}
    bad = Network(2).start(problem, 1.0, 1).potential.terms[1].weights[0]
    monkeypatch.setattr(otflow.studies.runner, "fault", only_seed_one)
    found = alpha_study(problem, **study)
    assert dict(found.failed) == {
        "alpha=1,seed=1": "made to fail",
        "alpha=2,seed=1": "needs alpha=1,seed=1, which failed",
    }
    assert [row["replicates"] for row in found.rows] == [1, 1]
    assert found.columns[2] == "nll"
