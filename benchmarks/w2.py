"""Solvers against maps known to be optimal: the pairs of the continuous Wasserstein-2 benchmark.

    python benchmarks/w2.py --data FOLDER --minutes 5              # d = 2, 8, 32, both leagues
    python benchmarks/w2.py --data FOLDER --dims 2 --minutes 0.5 --methods linear otflow
    python benchmarks/w2.py --data FOLDER --add mine=package.module:function

Two leagues of equal information. "samples": rows of P and of Q. "density": rows of Q and the
density of P, a Gaussian mixture; who cannot use a density gets fresh draws of it without end.
Contestants, each in a process of its own for the same minutes, compilation included:
  linear   the optimal map between the Gaussians of the same moments
  otflow   one convex stage from Q to P's density, which is fitted first where it is not known; in 8
           and 32 dimensions steps of the dual alone
  enot     OTT-JAX's ExpectileNeuralDual, its defaults
  ott-mlp  OTT-JAX's W2NeuralDual with PotentialMLP
  ott-icnn the same with ICNN
  ot-cfm   torchcfm's minibatch optimal-transport flow matching
--add brings another by a function x -> T(x) from P to Q: rows in, rows out.

L2-UVP = 100 E|That - T|^2 / total variance of the image; cosine: of the displacements That(x) - x
and T(x) - x. The last columns do not need the truth: at most so much of the cost of That is more
than an optimal map to the same end would have (certified at 95 %), and how far the end is from rows
of Q (W2 of 1,000 rows, biased upwards for all alike; `floor` is that of rows of Q themselves).
"""

import argparse
import functools
import importlib
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from maps.base import LEAGUES, Maps, Task
from otflow import datasets
from otflow.certificates import bracket_pairs
from otflow.datasets import MapPair
from otflow.estimator.between import sample_w2
from otflow.support.jsontext import json_text
from tables import DATA

METHODS = ("linear", "otflow", "enot", "ott-mlp", "ott-icnn", "ot-cfm")
COLUMNS = {
    "uvp P to Q": "uvp P to Q",
    "cosine P to Q": "cosine",
    "uvp Q to P": "uvp Q to P",
    "cosine Q to P": "cosine",
    "excess": "excess at most, %",
    "w2": "W2 to Q",
    "floor": "floor",
    "seconds": "seconds",
}
_ROWS = 1000  # a side of a W2 between samples


def solve(method: str, task: Task) -> Maps:
    """The maps of a contestant, by its name or by NAME=MODULE:FUNCTION."""
    if "=" in method:
        module, _, name = method.partition("=")[2].partition(":")
        return Maps(getattr(importlib.import_module(module), name))
    module, _, name = {
        "linear": "linear",
        "otflow": "ours",
        "enot": "ott:enot",
        "ott-mlp": "ott:mlp",
        "ott-icnn": "ott:icnn",
        "ot-cfm": "matching",
    }[method].partition(":")
    found = importlib.import_module(f"maps.{module}").solve
    return functools.partial(found, name=name)(task) if name else found(task)


def scores(pair: MapPair, found: Maps) -> dict[str, float]:
    """L2-UVP (percent) and cosine of both directions, of those that there are."""
    said = {}
    for name, apply, start, end in (
        ("P to Q", found.forward, pair.x_test, pair.y_test),
        ("Q to P", found.back, pair.y_test, pair.x_test),
    ):
        if apply is None:
            continue
        variance = pair.y_total_variance if name == "P to Q" else end.var(axis=0).sum()
        moved, truth = np.asarray(apply(start), float) - start, end - start
        error = np.sum((moved - truth) ** 2, axis=1).mean()
        norms = np.sqrt(np.sum(moved**2) * np.sum(truth**2))
        said[f"uvp {name}"] = float(100 * error / variance)
        said[f"cosine {name}"] = float(np.sum(moved * truth) / norms)
    return said


def without_the_truth(pair: MapPair, found: Maps, seconds: float) -> dict[str, float]:
    """Certified excess transport (percent of the cost), and W2 from the end to rows of Q."""
    ends = np.asarray(found.forward(pair.x_test), float)
    known = bracket_pairs(pair.x_test, ends, seconds=seconds)
    free, other = pair.y_train[:_ROWS], pair.y_train[_ROWS : 2 * _ROWS]
    return {
        "excess": 100 * known.excess / known.half_displacement,
        "lower": known.lower,
        "upper": known.upper,
        "w2": sample_w2(ends, free, _ROWS),
        "floor": sample_w2(other, free, _ROWS),
    }


def worker(given: argparse.Namespace) -> None:
    """Train one contestant and print its scores as JSON."""
    warnings.simplefilter("ignore")
    sys.path.insert(0, os.getcwd())  # for --add
    pair = datasets.w2pair(given.dims[0], given.data)
    settings = json.loads(given.settings)
    task = Task(pair, given.leagues[0], 60 * given.minutes, given.seed, settings)
    start = time.perf_counter()
    found = solve(given.worker, task)
    said = {"seconds": time.perf_counter() - start} | scores(pair, found)
    print(json.dumps(said | without_the_truth(pair, found, given.certify)))


def run(given: argparse.Namespace, league: str, dim: int, method: str) -> dict:
    """One contestant in a process of its own."""
    options = {
        "--worker": method,
        "--leagues": league,
        "--dims": dim,
        "--minutes": given.minutes,
        "--data": given.data,
        "--settings": given.settings,
        "--seed": given.seed,
        "--certify": given.certify,
    }
    words = [str(word) for pair in options.items() for word in pair]
    with tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(
            [sys.executable, __file__, *words], stdout=subprocess.PIPE, stderr=errors, text=True
        )
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1])
        errors.seek(0)
        lines = [text.strip() for text in errors if text.strip()]
    return {"status": f"failed: {lines[-1][:100] if lines else done.returncode}"}


def line(league: str, dim: int, method: str, row: dict) -> str:
    """A row of the table; what a solver does not have is left out, a failure told."""
    cells = [f"{row[k]:.4g}" if k in row else "" for k in COLUMNS]
    told = [row["status"]] if "status" in row else cells
    return f"| {league} | {dim} | {method.partition('=')[0]} | {' | '.join(told)} |"


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=DATA, type=Path, help="folder")
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--leagues", nargs="+", choices=LEAGUES, default=list(LEAGUES))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--add", nargs="+", default=[], help="NAME=MODULE:FUNCTION, x -> T(x)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--certify", type=float, default=60.0, help="seconds of the dual's fit")
    parser.add_argument(
        "--settings",
        default="{}",
        help="JSON to change: settings of OTFlow, or natural; from d = 8 alpha, width, plan_iter",
    )
    parser.add_argument("--json", help="append every row to this file")
    parser.add_argument("--quick", action="store_true", help="10 seconds each, d = 2")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given)
        return
    if given.quick:
        given.dims, given.minutes, given.certify = [2], 1 / 6, 5.0
    print(f"{platform.machine()}, {os.cpu_count()} cores, {given.minutes:g} minutes each\n")
    heads = ("league", "d", "method", *COLUMNS.values())
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for asked in itertools.product(given.leagues, given.dims, [*given.methods, *given.add]):
        row = run(given, *asked)
        print(line(*asked, row), flush=True)
        if given.json:
            with open(given.json, "a") as file:
                known = dict(zip(("league", "d", "method"), asked, strict=True))
                known |= {"minutes": given.minutes, "seed": given.seed}
                file.write(json_text(known | row) + "\n")


if __name__ == "__main__":
    main()
