"""One flow against a chain of flows: held-out nll of real tables at equal minutes.

    python benchmarks/chain.py gas_turbine digits --budget 5 --data FOLDER --json rows.jsonl
    python benchmarks/chain.py power --budget 60 --data FOLDER

The one flow is that of "the best density" in docs/density.md. The chain adds blocks of one step as
`OTFlowChain` does by default, and spends the rest of the minutes on training them together; "blocks
alone" spends none. All minutes are wall clock and count compilation and validation, so run it on a
machine with nothing else to do. Test rows are looked at once. The difference of two nlls is over
the same rows, with a 95 % interval; published figures for POWER stand below its table.
"""

import argparse
import copy
import os
import platform
import time
import warnings
from typing import Any

import numpy as np

from otflow import OTFlow, OTFlowChain
from otflow.datasets.tables import Table
from otflow.support.jsontext import json_text
from peers.base import interval
from tables import DATA, LOADERS
from timing.budget import fit_within
from timing.table import table

DENSITY: dict[str, Any] = {"alpha": 1000.0, "beta": 0.0, "n_steps": 6, "batch_size": 256}
OPTIONS: dict[str, Any] = {
    "random_state": 0,
    "patience": 10**6,
    "verbose": False,
    "standardize": False,
}
VALIDATION_ROWS = 10_000
_EVERY = 25
PUBLISHED = {"OT-Flow": -0.30, "JKO-iFlow": -0.40, "FFJORD": -0.46, "spline flow": -0.66}  # POWER
COLUMNS = {
    "set": "set",
    "method": "method",
    "blocks": "blocks",
    "steps": "steps",
    "minutes": "minutes",
    "validation nll": "validation",
    "test nll": "nll",
    "+-": "half_interval",
    "less one flow's": "less",
    "+- ": "less_half",
}


def one(data: Table, seconds: float) -> OTFlow:
    """One flow for so many seconds."""
    model = OTFlow(**OPTIONS | DENSITY)
    fit_within(model, data.train, data.validation[:VALIDATION_ROWS], seconds)
    return model


def chain(data: Table, seconds: float, together: bool) -> OTFlowChain:
    """Blocks, and what is left of the seconds for all of them together."""
    start = time.perf_counter()
    rows, held = data.train, data.validation[:VALIDATION_ROWS]
    model = OTFlowChain(**OPTIONS | {"joint_iter": 0, "batch_size": 256})
    model.fit(rows, X_val=held)
    if not together:
        return model
    stamps: list[float] = []
    probe = copy.deepcopy(model).set_params(max_iter=4 * _EVERY)
    probe.partial_fit(
        rows, X_val=held, on_validation=lambda row: stamps.append(time.perf_counter())
    )
    pace = (stamps[-1] - stamps[-3]) / (2 * _EVERY)
    left = 0.93 * (seconds - (time.perf_counter() - start))
    model.set_params(max_iter=max(_EVERY, int(left / pace)))

    def watch(row: dict) -> None:
        if time.perf_counter() - start > seconds and row["iteration"] > 0:
            raise KeyboardInterrupt

    try:
        model.partial_fit(rows, X_val=held, on_validation=watch)
    except KeyboardInterrupt:
        if time.perf_counter() - start < seconds:
            raise  # it was the user's
    return model


def compare(data: Table, seconds: float) -> list[dict[str, Any]]:
    """The three ways on one table."""
    ways = {
        "one flow": lambda: one(data, seconds),
        "chain": lambda: chain(data, seconds, together=True),
        "blocks alone": lambda: chain(data, seconds, together=False),
    }
    rows, scores = [], {}
    for name, way in ways.items():
        start = time.perf_counter()
        model = way()
        minutes = (time.perf_counter() - start) / 60
        scores[name] = model.score_samples(data.test)
        nll, half = interval(scores[name])
        less = scores["one flow"] - scores[name]
        row = {"set": data.name, "method": name, "minutes": minutes, "nll": nll}
        row |= {"half_interval": half, "steps": model.n_iter_, "less": float(less.mean())}
        row["less_half"] = float(1.96 * less.std() / np.sqrt(len(less)))
        row["validation"] = -model.score(data.validation[:VALIDATION_ROWS])
        blocks = getattr(model, "blocks_", ())
        row |= {"blocks": len(blocks), "history": [vars(block) for block in blocks]}
        rows.append(row)
        print(table([row], COLUMNS), flush=True)
    return rows


def main() -> None:
    """Parse the command line, train, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", choices=LOADERS)
    parser.add_argument("--budget", type=float, default=5.0, help="minutes each")
    parser.add_argument("--data", default=DATA, help="folder")
    parser.add_argument("--json", help="append the rows to this file")
    parser.add_argument("--quick", action="store_true", help="15 seconds each, few rows")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{platform.machine()}, {os.cpu_count()} cores\n", flush=True)
    found: list[dict[str, Any]] = []
    for name in given.sets:
        data = LOADERS[name](given.data)
        seconds = 60 * given.budget
        if given.quick:
            parts = (part[:2000] for part in (data.train, data.validation, data.test))
            details = (data.name, data.feature_names, data.shift, data.scale, data.source)
            data, seconds = Table(*parts, *details), 15.0
        found += compare(data, seconds)
    print(table(found, COLUMNS))
    if "power" in given.sets:
        print("published, POWER: " + ", ".join(f"{k} {v:.2f}" for k, v in PUBLISHED.items()))
    if given.json:
        with open(given.json, "a") as file:
            file.writelines(json_text(row) + "\n" for row in found)


if __name__ == "__main__":
    main()
