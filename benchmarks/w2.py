"""Flows against maps known to be optimal: the pairs of the continuous Wasserstein-2 benchmark.

    python benchmarks/w2.py --data FOLDER --minutes 5              # d = 2, 8, 32
    python benchmarks/w2.py --data FOLDER --dims 2 --minutes 0.5 --quick

A flow runs from Q (samples) to P (a Gaussian mixture); its inverse is compared with the true map
x -> y from P to Q on test pairs, the flow itself with y -> x. L2-UVP = 100 E|That - T|^2 / total
variance of the image; cosine: of the displacements That(x) - x and T(x) - x. Contestants, each in a
process of its own for the same minutes, compilation included:
  otflow   one convex stage that starts from the plan; told P's density, the others samples. In
           8 and 32 dimensions as many steps of the dual as SETTINGS says, whatever the minutes
  ott-mlp  OTT-JAX's W2NeuralDual with PotentialMLP
  ott-icnn the same with ICNN
  linear   the optimal map between the Gaussians of the same moments
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np

from otflow import OTFlow, datasets
from otflow.datasets import MapPair
from otflow.potentials import GaussianBase
from otflow.support.jsontext import json_text
from otflow.support.precision import precision
from otflow.targets import GaussianMixture
from tables import DATA

SETTINGS = {  # many steps of the dual where P's components are too thin for the likelihood
    2: {"n_steps": 1, "learning_rate": 0.05, "batch_size": 1024},
    8: {"n_steps": 1, "plan_iter": 25_000, "max_iter": 1},
    32: {"n_steps": 1, "plan_iter": 5_000, "max_iter": 1},
}
METHODS = ("linear", "otflow", "ott-mlp", "ott-icnn")


def otflow_maps(pair: MapPair, seconds: float, settings: dict) -> tuple[np.ndarray, np.ndarray]:
    """Images of x_test and of y_test by the inverse flow and the flow."""
    from timing.budget import fit_within

    target = GaussianMixture(pair.weights, pair.means, pair.covs)
    options = {"alpha": 300.0, "patience": 10**6, "random_state": 0}
    options |= SETTINGS[pair.means.shape[1]] | settings
    natural = options.pop("natural", 0.0)  # share of the time for natural-gradient steps
    model = OTFlow(target=target, standardize=False, verbose=False, **options)
    cut = len(pair.y_train) // 10
    if options.get("max_iter") == 1:
        model.fit(pair.y_train)
    else:
        fit_within(model, pair.y_train[cut:], pair.y_train[:cut], seconds, natural)
    return model.inverse_transform(pair.x_test), model.transform(pair.y_test)


def ott_maps(pair: MapPair, seconds: float, network: str) -> tuple[np.ndarray, np.ndarray]:
    """The same by OTT-JAX's neural dual, fitted to samples of both, as its examples set it."""
    import jax.numpy as jnp
    import optax
    from ott.neural.methods.neuraldual import W2NeuralDual
    from ott.neural.networks import icnn, potentials

    d, start = pair.means.shape[1], time.perf_counter()

    def build(is_potential: bool):
        if network == "icnn":
            return icnn.ICNN(dim_data=d, dim_hidden=[64, 64, 64, 64])
        return potentials.PotentialMLP(dim_hidden=[128, 128, 128], is_potential=is_potential)

    def batches(rows: np.ndarray, seed: int):
        rng, rows = np.random.default_rng(seed), jnp.asarray(rows, jnp.float32)
        for _ in itertools.count():
            yield rows[rng.integers(len(rows), size=1024)]

    last = {}

    def watch(step: int, found) -> None:
        last["found"] = found
        if time.perf_counter() - start > seconds:
            raise TimeoutError

    solver = W2NeuralDual(
        d,
        build(True),
        build(network == "icnn"),
        optax.adam(1e-3, b1=0.5, b2=0.9),
        optax.adam(1e-3, b1=0.5, b2=0.9),
        num_train_iters=10**7,
        num_inner_iters=10 if network == "icnn" else 1,
        valid_freq=10**7,
        log_freq=10**7,
    )
    streams = [batches(rows, k) for k, rows in enumerate((pair.x_train, pair.y_train) * 2)]
    with contextlib.suppress(TimeoutError):
        solver(*streams, callback=watch)
    found = last["found"]
    x, y = (jnp.asarray(a, jnp.float32) for a in (pair.x_test, pair.y_test))
    moved = found.transport(x), found.transport(y, forward=False)
    return tuple(np.asarray(a, float) for a in moved)


def linear_maps(pair: MapPair) -> tuple[np.ndarray, np.ndarray]:
    """The optimal maps between the Gaussians with the training rows' moments."""
    ends = []
    with precision("float64"):
        for a, b, rows in (
            (pair.x_train, pair.y_train, pair.x_test),
            (pair.y_train, pair.x_train, pair.y_test),
        ):
            moments = [f(z) for z in (a, b) for f in (_mean, _cov)]
            base = GaussianBase.solve(moments[0], moments[1], 1e9, moments[2], moments[3])
            ends.append(rows - np.asarray(base.gradient(rows, 0.0))[:, :-1])
    return ends[0], ends[1]


def scores(pair: MapPair, y_found: np.ndarray, x_found: np.ndarray) -> dict[str, float]:
    """L2-UVP (percent) and cosine of both directions."""
    found = {}
    for name, start, end, got in (
        ("P to Q", pair.x_test, pair.y_test, y_found),
        ("Q to P", pair.y_test, pair.x_test, x_found),
    ):
        variance = pair.y_total_variance if name == "P to Q" else end.var(axis=0).sum()
        error = np.sum((got - end) ** 2, axis=1).mean()
        moved, truth = got - start, end - start
        norms = np.sqrt(np.sum(moved**2) * np.sum(truth**2))
        found[f"uvp {name}"] = float(100 * error / variance)
        found[f"cosine {name}"] = float(np.sum(moved * truth) / norms)
    return found


def worker(given: argparse.Namespace) -> None:
    """Train one contestant and print its scores as JSON."""
    warnings.simplefilter("ignore")
    pair = datasets.w2pair(given.dims[0], given.data)
    seconds, start = 60 * given.minutes, time.perf_counter()
    if given.worker == "linear":
        ends = linear_maps(pair)
    elif given.worker == "otflow":
        ends = otflow_maps(pair, seconds, json.loads(given.settings))
    else:
        ends = ott_maps(pair, seconds, given.worker.removeprefix("ott-"))
    print(json.dumps(scores(pair, *ends) | {"seconds": time.perf_counter() - start}))


def run(given: argparse.Namespace, method: str, dim: int) -> dict:
    """One contestant in a process of its own."""
    command = [sys.executable, __file__, "--worker", method, "--dims", str(dim)]
    command += ["--minutes", str(given.minutes), "--data", str(given.data)]
    command += ["--settings", given.settings]
    with tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1])
        errors.seek(0)
        lines = [text.strip() for text in errors if text.strip()]
    return {"status": f"failed: {lines[-1][:100] if lines else done.returncode}"}


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=DATA, help="folder")
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--settings", default="{}", help="JSON: settings of OTFlow, or natural, to change"
    )
    parser.add_argument("--json", help="append every row to this file")
    parser.add_argument("--quick", action="store_true", help="10 seconds each, d = 2")
    parser.add_argument("--worker", choices=METHODS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given)
        return
    if given.quick:
        given.dims, given.minutes = [2], 1 / 6
    print(f"{platform.machine()}, {os.cpu_count()} cores, {given.minutes:g} minutes each\n")
    keys = ("uvp P to Q", "cosine P to Q", "uvp Q to P", "cosine Q to P", "seconds")
    print(f"| d | method | {' | '.join(keys)} |\n|{'---|' * (len(keys) + 2)}")
    for dim, method in itertools.product(given.dims, given.methods):
        row = run(given, method, dim)
        cells = [f"{row[k]:.4g}" for k in keys] if "status" not in row else [row["status"]]
        print(f"| {dim} | {method} | {' | '.join(cells)} |", flush=True)
        if given.json:
            with open(given.json, "a") as file:
                found = {"d": dim, "method": method, "minutes": given.minutes} | row
                file.write(json_text(found) + "\n")


def _mean(x: np.ndarray) -> np.ndarray:
    return x.mean(axis=0)


def _cov(x: np.ndarray) -> np.ndarray:
    return np.cov(x, rowvar=False)


if __name__ == "__main__":
    main()
