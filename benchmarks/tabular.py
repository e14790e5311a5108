"""Held-out likelihood of real tables within a time budget, with what else can be checked.

    python benchmarks/tabular.py power --budget 60 --data FOLDER --json rows.jsonl
    python benchmarks/tabular.py gas_turbine --budget 10 --data FOLDER --peers
    python benchmarks/tabular.py miniboone_mini --quick --data FOLDER

The budget, in minutes, covers compilation, training and validation; test rows are looked at once,
at the end. nll in nats and the prepared table's units, over the valid rows, with a 95 % interval;
rows where the map is not invertible are counted beside it. --peers trains flowjax's neural spline
flow and zuko's CNF for the same minutes each, in processes of their own, on the same rows.
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

from otflow import OTFlow
from otflow.certificates import certify_model
from otflow.certificates.budget import trainable_parameters
from otflow.certificates.two_sample import mmd
from otflow.datasets.tables import Table
from peers.base import Setup
from peers.registry import entries
from tables import DATA, LOADERS
from timing.budget import fit_within
from timing.field import Field
from timing.table import table

COMMON = {"alpha": 1000.0, "beta": 0.0, "n_steps": 6, "batch_size": 256}  # "the best density"
VALIDATION_ROWS = 10_000
_PEER_ROWS = 20_000
_SLICE = 60.0  # seconds of a peer's training between two points of its curve
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


def interval(scores: np.ndarray) -> tuple[float, float]:
    """Mean nll and half of its 95 % interval."""
    return -float(scores.mean()), float(1.96 * scores.std() / np.sqrt(len(scores)))


def ours(data: Table, budget: float, settings: dict[str, Any], certificate: bool) -> dict[str, Any]:
    """Train within the budget (seconds) and test."""
    start = time.perf_counter()
    options = {"random_state": 0, "patience": 10**6, "verbose": False, "standardize": False}
    model = OTFlow(**options | settings)
    curve = fit_within(model, data.train, data.validation[:VALIDATION_ROWS], budget)
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
    setup = Setup(width=128, batch=1024, total_steps=10**9, block=10)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npz"
        parts = {"train": data.train, "held_out": data.test[:_PEER_ROWS]}
        parts = {name: part.astype(np.float32) for name, part in parts.items()}
        np.savez(path, **parts, log_scale=0.0)
        with Field(entries("flowjax-nsf", "zuko-cnf"), "tabular") as field:
            field.build(path, setup)
            for turn in field.turns():
                with turn:
                    spent, curve = 0.0, []
                    while spent < budget:
                        found = turn.call("train", seconds=min(_SLICE, budget - spent))
                        spent += sum(found["seconds"])
                        curve.append((spent, turn.call("nll", rows=5000)["nll"]))
                    turn.row.update(steps=found["steps"], minutes=spent / 60, curve=curve)
                    turn.row["nll"] = turn.call("nll", rows=_PEER_ROWS)["nll"]
        return [{"method": name} | row for name, row in field.rows.items()]


def main() -> None:
    """Parse the command line, train, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=LOADERS)
    parser.add_argument("--budget", type=float, default=10.0, help="minutes of training")
    parser.add_argument("--data", default=DATA, help="folder")
    parser.add_argument("--settings", default="{}", help="JSON: settings of OTFlow to change")
    parser.add_argument("--peers", action="store_true", help="also flowjax and zuko")
    parser.add_argument("--json", help="append the rows, with their curves, to this file")
    parser.add_argument("--quick", action="store_true", help="15 seconds, few rows, no certificate")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    data = LOADERS[given.set](given.data)
    settings = COMMON | json.loads(given.settings)
    budget = 60 * given.budget
    if given.quick:
        budget, settings = 15.0, settings | {"width": 16, "batch_size": 256}
        rows = (part[:2000] for part in (data.train, data.validation, data.test))
        details = (data.name, data.feature_names, data.shift, data.scale, data.source)
        data = Table(*rows, *details)
    print(f"{platform.machine()}, {os.cpu_count()} cores; {data.source}")
    print(f"{data.train.shape} train, {len(data.test)} test; {settings}\n", flush=True)
    found = [ours(data, budget, settings, certificate=not given.quick)]
    found += peers(data, budget) if given.peers else []
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
            file.writelines(json.dumps(row) + "\n" for row in found)


if __name__ == "__main__":
    main()
