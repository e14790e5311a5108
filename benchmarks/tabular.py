"""Held-out likelihood of real tables within a time budget, with what else can be checked.

    python benchmarks/tabular.py power --budget 60 --data FOLDER --json rows.jsonl
    python benchmarks/tabular.py gas_turbine --budget 10 --data FOLDER --peers
    python benchmarks/tabular.py miniboone_mini --quick --data FOLDER

The budget, in minutes, covers compilation, training and validation; test rows are looked at once,
at the end. A tenth of it goes to each of the documented settings, the default's and those for "the
best density", the rest to the one of the lowest validation nll (--settings: to those alone). nll in
nats and the prepared table's units, over the valid rows, with a 95 % interval; rows where the map
is not invertible are counted beside it. --peers gives flowjax's neural spline flow and zuko's CNF
the same minutes each, in processes of their own, on the same rows: a tenth for each of three
learning rates, the rest for the one of the lowest validation nll, from the start, and the weights
of its best validation are tested. The Gaussian mixture has the number of components that validation
prefers.
"""

import argparse
import json
import os
import platform
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.mixture import GaussianMixture

from otflow import OTFlow
from otflow.certificates import certify_model
from otflow.certificates.budget import trainable_parameters
from otflow.certificates.two_sample import mmd
from otflow.datasets.tables import Table
from otflow.support.jsontext import json_text
from peers.base import Setup, interval
from peers.registry import entries
from tables import DATA, LOADERS
from timing.budget import fit_within
from timing.field import Field, Turn
from timing.table import table

DENSITY = {"alpha": 1000.0, "beta": 0.0, "n_steps": 6, "batch_size": 256}  # "the best density"
VALIDATION_ROWS = 10_000
_RATES = (3e-4, 1e-3, 3e-3)
_TRIAL = 0.1  # of the time, for each of the settings or rates
_SLICES = 30  # validations of a peer's training
_MIXTURE_ROWS = 100_000
_COMPONENTS = (1, 2, 5, 10, 20, 40, 60)
COLUMNS = {
    "set": "set",
    "method": "method",
    "parameters": "parameters",
    "steps": "steps",
    "minutes": "minutes",
    "test nll": "nll",
    "+-": "half_interval",
    "invalid rows": "invalid",
    "round trip": "inverse_error",
    "MMD": "mmd",
    "p": "mmd_p",
    "nll error": "nll_error",
    "certificate width": "width",
    "status": "status",
}


def ours(
    data: Table, budget: float, candidates: list[dict[str, Any]], certificate: bool
) -> dict[str, Any]:
    """Train within the budget (seconds) and test."""
    start = time.perf_counter()
    options = {"random_state": 0, "patience": 10**6, "verbose": False, "standardize": False}
    rows = data.train, data.validation[:VALIDATION_ROWS]

    def best_nll(settings: dict[str, Any]) -> float:
        curve = fit_within(OTFlow(**options | settings), *rows, _TRIAL * budget)
        return min(nll for _, nll in curve)

    settings = min(candidates, key=best_nll) if len(candidates) > 1 else candidates[0]
    model = OTFlow(**options | settings)
    curve = fit_within(model, *rows, budget - (time.perf_counter() - start))
    minutes = (time.perf_counter() - start) / 60
    scores = model.score_samples(data.test)
    valid = np.isfinite(scores)
    nll, half = interval(scores[valid])
    some = data.test[valid][:10_000]
    back = model.inverse_transform(model.transform(some))
    found = mmd(model.sample(2000, random_state=1), data.test[:2000], seed=0)
    row = {
        "method": "otflow",
        "settings": settings,
        "parameters": trainable_parameters(model.flow_.potential),
        "steps": model.n_iter_,
        "minutes": minutes,
        "nll": nll,
        "half_interval": half,
        "invalid": int((~valid).sum()),
        "inverse_error": float(np.abs(back - some).max()),
        "mmd": found.statistic,
        "mmd_p": found.p_value,
        "nll_error": float(np.mean(model.flow_.log_prob_with_error(some[:1024]).error)),
        "curve": curve,
        "status": model.status_,
    }
    if certificate:
        rows = data.test[valid][:4000]
        row["width"] = certify_model(model, rows, seconds=60.0).relative_width
    return row


def peers(data: Table, budget: float) -> list[dict[str, Any]]:
    """The other flows for the same seconds, each scored on the first test rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npz"
        held_out = data.validation[:VALIDATION_ROWS]
        parts = {"train": data.train, "held_out": held_out, "test": data.test}
        parts = {name: part.astype(np.float32) for name, part in parts.items()}
        np.savez(path, **parts, log_scale=0.0)
        with Field(entries("flowjax-nsf", "zuko-cnf"), "tabular") as field:
            for turn in field.turns():
                with turn:
                    trials = {rate: _train(turn, path, rate, _TRIAL * budget) for rate in _RATES}
                    rate = min(trials, key=lambda rate: min(nll for _, nll in trials[rate]))
                    curve = _train(turn, path, rate, (1 - len(_RATES) * _TRIAL) * budget)
                    turn.row.update(minutes=budget / 60, curve=curve, settings={"rate": rate})
                    turn.row |= turn.call("best_nll", data=str(path))
        return [{"method": name} | row for name, row in field.rows.items()]


def _train(turn: Turn, path: Path, rate: float, seconds: float) -> list[tuple[float, float]]:
    """A contestant from its start; (seconds, validation nll) pairs."""
    turn.build(path, Setup(width=128, batch=1024, total_steps=10**9, block=10, rate=rate))
    spent, curve = 0.0, []
    while spent < seconds:
        slice_ = min(max(seconds / _SLICES, 1.0), seconds - spent)
        found = turn.call("train", seconds=slice_)
        turn.row["steps"] = found["steps"]
        spent += sum(found["seconds"])
        curve.append((spent, turn.call("keep", rows=VALIDATION_ROWS)["nll"]))
    return curve


def mixture(data: Table, budget: float) -> dict[str, Any]:
    """The Gaussian mixture of the lowest validation nll, of the numbers the budget allows."""
    start, best = time.perf_counter(), (np.inf, None, 0)
    rows = np.random.default_rng(0).permutation(data.train)[:_MIXTURE_ROWS]
    for k in _COMPONENTS:
        if time.perf_counter() - start > budget or k > len(rows) // 2:
            break
        found = GaussianMixture(k, reg_covar=1e-5, random_state=0).fit(rows)
        nll = -found.score(data.validation[:VALIDATION_ROWS])
        best = min(best, (nll, found, k), key=lambda entry: entry[0])
    nll, half = interval(best[1].score_samples(data.test))
    minutes = (time.perf_counter() - start) / 60
    found = {"method": f"mixture of {best[2]}", "minutes": minutes}
    return found | {"nll": nll, "half_interval": half}


def main() -> None:
    """Parse the command line, train, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=LOADERS)
    parser.add_argument("--budget", type=float, default=10.0, help="minutes of training")
    parser.add_argument("--data", default=DATA, help="folder")
    parser.add_argument("--settings", help="JSON: settings of OTFlow to train")
    parser.add_argument("--peers", action="store_true", help="also a mixture, flowjax and zuko")
    parser.add_argument("--json", help="append the rows, with their curves, to this file")
    parser.add_argument("--quick", action="store_true", help="15 seconds, few rows, no certificate")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    data = LOADERS[given.set](given.data)
    settings = [json.loads(given.settings)] if given.settings else [{}, DENSITY]
    budget = 60 * given.budget
    if given.quick:
        budget, settings = 15.0, [DENSITY | {"width": 16}]
        rows = (part[:2000] for part in (data.train, data.validation, data.test))
        details = (data.name, data.feature_names, data.shift, data.scale, data.source)
        data = Table(*rows, *details)
    print(f"{platform.machine()}, {os.cpu_count()} cores; {data.source}")
    print(f"{data.train.shape} train, {len(data.test)} test; {settings}\n", flush=True)
    found = [ours(data, budget, settings, certificate=not given.quick)]
    found += [mixture(data, budget), *peers(data, budget)] if given.peers else []
    found = [{"set": given.set} | row for row in found]
    print(table(found, COLUMNS))
    for row in found:
        points = row.get("curve", [])
        chosen = (
            [points[i] for i in np.linspace(0, len(points) - 1, 12).astype(int)] if points else []
        )
        text = ", ".join(f"{seconds / 60:.1f}: {nll:.3f}" for seconds, nll in chosen)
        print(f"\n{row['method']}, nll against minutes: {text}")
    if given.json:
        with open(given.json, "a") as file:
            file.writelines(json_text(row) + "\n" for row in found)


if __name__ == "__main__":
    main()
