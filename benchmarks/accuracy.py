"""How near training comes to the exact minimum J*_alpha: the table of docs/benchmarks.md.

    python benchmarks/accuracy.py            # the whole table: hours on 2 cores
    python benchmarks/accuracy.py --quick    # one row a scheme: 75 s

Problem: rotated product of d copies of 0.4 N(-2, 0.5^2) + 0.6 N(1.5, 0.7^2) to N(0, I).
"""

import argparse
import platform
import time
import warnings

import jax
import jaxlib
import numpy as np

from otflow import OTFlow, use_all_cores
from otflow.flow.evaluation import evaluate
from otflow.flow.flow import Flow
from otflow.reference import product_mixture
from otflow.support.jsontext import json_text
from otflow.support.precision import cast
from otflow.targets import RotatedProduct

CONFORMING = {
    2: {"width": 128, "max_iter": 2000, "natural_iter": 200, "batch_size": 4096},
    8: {"width": 256, "max_iter": 2000, "natural_iter": 300, "batch_size": 4096},
    # too many parameters for natural gradients; a rate of 0.01 ends ten times J* from it
    32: {"width": 1024, "max_iter": 4000, "natural_iter": 0, "batch_size": 1024},
}
LEARNING_RATE = {2: 0.01, 8: 0.01, 32: 0.002}
COLUMNS = (
    "scheme    d  alpha seed       J*        J  gap%  +-%        KL       KL*  map%  invalid"
    "  nll_err  trip64  trip32  min"
)


def density_of(exact, dim: int) -> RotatedProduct:
    """The standard problem as a density for training."""
    rows = [np.tile(v, (dim, 1)) for v in ([0.4, 0.6], [-2.0, 1.5], [0.5, 0.7])]
    return RotatedProduct(*rows, exact.rotation)


def round_trip(flow: Flow, dtype: str, x: np.ndarray) -> float:
    """Largest |inverse(forward(x)) - x| over the rows, in a precision."""
    flow = cast(flow, dtype)
    x = x.astype(dtype)
    return float(np.abs(np.asarray(flow.inverse(flow.forward(x))) - x).max())


def run(scheme: str, dim: int, alpha: float, seed: int, n: int, settings: dict) -> dict:
    """Train, evaluate and print one row."""
    exact = product_mixture(dim, alpha)
    density = density_of(exact, dim)
    start = time.perf_counter()
    model = OTFlow(
        alpha=alpha,
        scheme=scheme,
        learning_rate=LEARNING_RATE[dim],
        patience=10**6,
        random_state=seed,
        **settings,
    ).fit_density(density)
    minutes = (time.perf_counter() - start) / 60
    found = evaluate(model.flow_, density, alpha, n=n, seed=1000 + seed, exact=exact)
    x = exact.sample(2000 + seed, 100_000)
    moved = np.asarray(cast(model.flow_, "float64").forward(x))
    variance = np.trace(np.cov(x, rowvar=False))
    row = {
        "scheme": scheme,
        "d": dim,
        "alpha": alpha,
        "seed": seed,
        "exact": exact.objective,
        "objective": found.objective.mean,
        "gap_percent": 100 * (found.objective.mean / exact.objective - 1),
        "half_interval_percent": 196 * found.objective.standard_error / exact.objective,
        "kl": found.kl.mean,
        "kl_exact": exact.kl,
        "map_error_percent": 100
        * float(((moved - exact.map(x)) ** 2).sum(axis=1).mean() / variance),
        "invalid": found.invalid,
        "nll_error": found.nll_error,
        "round_trip_float64": round_trip(model.flow_, "float64", x[:20_000]),
        "round_trip_float32": round_trip(model.flow_, "float32", x[:20_000]),
        "minutes": minutes,
        "n": found.n,
        "n_steps": model.flow_.scheme.n_steps,
    }
    print(
        f"{scheme:<10}{dim:>2} {alpha:>6g} {seed:>4} {row['exact']:>8.4f} {row['objective']:>8.4f} "
        f"{row['gap_percent']:>5.2f} {row['half_interval_percent']:>4.2f} {row['kl']:>9.2e} "
        f"{row['kl_exact']:>9.2e} {row['map_error_percent']:>5.3f} {row['invalid']:>8} "
        f"{row['nll_error']:>8.1e} {row['round_trip_float64']:>7.0e} "
        f"{row['round_trip_float32']:>7.0e} {minutes:>4.1f}",
        flush=True,
    )
    return row


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--alphas", type=float, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--schemes", nargs="+", default=["conforming", "rk4"])
    parser.add_argument("--json", help="also append the rows to this file, one JSON object a line")
    given = parser.parse_args()
    use_all_cores()
    warnings.filterwarnings("ignore", message="Explicitly requested dtype")
    print(
        f"{platform.machine()}, {jax.default_backend()}, jax {jax.__version__}, "
        f"jaxlib {jaxlib.__version__}, python {platform.python_version()}"
    )
    print(COLUMNS)
    jobs = [
        (s, d, a, k)
        for k in given.seeds
        for s in given.schemes
        for d in given.dims
        for a in given.alphas
    ]
    if given.quick:
        jobs = [(s, 2, 10.0, 0) for s in given.schemes]
    for scheme, dim, alpha, seed in jobs:
        if scheme == "conforming":
            settings = dict(CONFORMING[dim], n_steps=1, depth=0, potential="resnet")
        else:
            settings = {"n_steps": 8, "width": 32, "max_iter": 1500, "beta": 1.0}
            settings |= {"depth": 1, "batch_size": 4096 if dim == 2 else 1024}
        if given.quick:
            settings |= {"max_iter": 500, "natural_iter": 60 if scheme == "conforming" else 0}
        row = run(scheme, dim, alpha, seed, 100_000 if given.quick else 1_000_000, settings)
        if given.json:
            with open(given.json, "a") as file:
                file.write(json_text(row) + "\n")


if __name__ == "__main__":
    main()
