"""Conditional against unconditional flows on held-out rows: the table of docs/benchmarks.md.

    python benchmarks/conditional.py            # some minutes
    python benchmarks/conditional.py --quick    # under a minute

Moons given their half circle, and (where the file is there) gas turbine given the weather.
"""

import argparse
import platform
import time
import warnings
from pathlib import Path

import jax
import jaxlib
import numpy as np
from scipy.stats import multivariate_normal

from otflow import OTFlow
from otflow.datasets import labelled_moons, labelled_moons_log_prob
from otflow.estimator.building import regression
from otflow.support.jsontext import json_text

GAS_TURBINE = Path(__file__).resolve().parents[2] / "shared" / "data" / "gas_turbine.npz"
NAMES = ("AT", "AP", "AH", "AFDP", "GTEP", "TIT", "TAT", "CDP", "TEY", "CO", "NOX")
WEATHER = 3  # AT, AP, AH: ambient temperature, pressure, humidity
COARSE = ("AP", "TIT", "TAT")  # columns of some 800 levels
SETTINGS = {"n_steps": 4, "patience": 10**6, "random_state": 0}


def mean_and_half(values: np.ndarray) -> list[float]:
    """A mean and half its 95 % interval."""
    return [float(values.mean()), float(1.96 * values.std(ddof=1) / np.sqrt(values.size))]


def compare(name: str, train, validation, test, references: dict, settings: dict) -> dict:
    """Held-out nll of both flows (pairs (x, condition)), and their paired difference."""
    warnings.filterwarnings("ignore", message=".*not invertible")  # counted below
    row: dict = {"set": name, "rows": [len(train[0]), len(test[0])], "d": train[0].shape[1]}
    nll, start = {}, time.perf_counter()
    for kind in ("conditional", "unconditional"):
        c, c_val, c_test = (
            part[1] if kind == "conditional" else None for part in (train, validation, test)
        )
        model = OTFlow(**SETTINGS | settings)
        model.fit(train[0], X_val=validation[0], condition=c, condition_val=c_val)
        nll[kind] = -model.score_samples(test[0], c_test)
    row["minutes"] = (time.perf_counter() - start) / 60
    nll["gap"] = nll["unconditional"] - nll["conditional"]
    valid = np.isfinite(nll["gap"])  # where a map is not invertible no column counts the row
    row["invalid"] = int((~valid).sum())
    row |= {key: mean_and_half(values[valid]) for key, values in (nll | references).items()}
    for key in ("conditional", "unconditional", "gap", *references):
        print(f"{name:<12} {key:<26} {row[key][0]:>9.4f} +- {row[key][1]:.4f}", flush=True)
    print(
        f"{name:<12} {row['invalid']} rows not invertible; {row['minutes']:.1f} minutes", flush=True
    )
    return row


def moons(quick: bool) -> dict:
    """Two half circles, the class one-hot; the exact nlls come from quadrature."""
    sizes = (2000, 500, 5000) if quick else (8000, 2000, 20_000)
    draws = [labelled_moons(n, seed) for seed, n in enumerate(sizes)]
    parts = [(draw.points, np.eye(2)[draw.labels]) for draw in draws]
    x, labels = draws[-1]
    own, other = (labelled_moons_log_prob(x, k) for k in (labels, 1 - labels))
    mixture = np.logaddexp(own, other) - np.log(2)
    references = {
        "exact conditional": -own,
        "exact unconditional": -mixture,
        "mutual information": own - mixture,
    }
    settings = {"width": 16, "max_iter": 100} if quick else {"width": 32, "max_iter": 800}
    return compare("moons", *parts, references, settings)


def gas_turbine(quick: bool) -> dict:
    """Eight operating columns given the weather; the reference is a Gaussian regression."""
    with np.load(GAS_TURBINE) as archive:
        table = archive["X"].astype(np.float64)
    rng = np.random.default_rng(0)
    for j in (NAMES.index(name) for name in COARSE):
        gap = np.median(np.diff(np.unique(table[:, j])))
        table[:, j] += gap * (rng.random(len(table)) - 0.5)
    table = table[rng.permutation(len(table))][: 6000 if quick else None]
    tenth = len(table) // 10
    cuts = np.split(table, [len(table) - 2 * tenth, len(table) - tenth])
    parts = [(part[:, WEATHER:], part[:, :WEATHER]) for part in cuts]
    given, plain = (gaussian_nll(parts[0], parts[-1], use) for use in (True, False))
    references = {
        "gaussian conditional": given,
        "gaussian unconditional": plain,
        "gaussian gap": plain - given,
    }
    settings = {"width": 16, "max_iter": 50} if quick else {"width": 32, "max_iter": 800}
    return compare("gas_turbine", *parts, references, settings)


def gaussian_nll(train, test, use: bool) -> np.ndarray:
    """-log N(x; mean + W c, covariance of the residuals), fitted by least squares."""
    (x, c), (x_test, c_test) = train, test
    if not use:
        c, c_test = np.zeros_like(c), np.zeros_like(c_test)
    mean, W = regression(x, c)
    cov = np.cov(x - c @ W.T, rowvar=False)
    return -multivariate_normal(mean, cov).logpdf(x_test - c_test @ W.T)


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--json", help="also append the rows to this file, one JSON object a line")
    given = parser.parse_args()
    print(
        f"{platform.machine()}, {jax.default_backend()}, jax {jax.__version__}, "
        f"jaxlib {jaxlib.__version__}, python {platform.python_version()}\n"
        "held-out nll, nats in the data's own units"
    )
    for run in (moons, gas_turbine):
        if run is gas_turbine and not GAS_TURBINE.exists():
            print(
                f"gas_turbine skipped: no {GAS_TURBINE.name} in shared/data beside the repository"
            )
            continue
        row = run(given.quick)
        if given.json:
            with open(given.json, "a") as file:
                file.write(json_text(row) + "\n")


if __name__ == "__main__":
    main()
