"""What the defaults of OTFlow should be: settings side by side on ten tables, equal minutes.

    python benchmarks/choose.py --minutes 1 --data FOLDER
    python benchmarks/choose.py --sets moons gas_turbine --settings '[{}, {"beta": 0}]'

Each setting is a change of OTFlow's defaults. Test rows are looked at once, at the end: nll in nats
and the prepared table's units with its 95 % interval; bend is straightness / (2 transport) on them;
J is transport + alpha nll. `default` runs what a user gets who sets nothing, without a time limit.
"""

import argparse
import json
import platform
import time
import warnings
from typing import Any

import jax
import numpy as np

from otflow import OTFlow
from otflow.datasets.tables import Table
from otflow.support.jsontext import json_text
from peers.base import interval
from tables import DATA, LOADERS
from tabular import VALIDATION_ROWS
from timing.budget import fit_within
from timing.table import table

TEN = (
    "gas_turbine",
    "power",
    "embryoid_body",
    "digits",
    "breast_cancer",
    "moons",
    "pinwheel",
    "8gaussians",
    "checkerboard",
    "miniboone_mini",
)
COLUMNS = {
    "set": "set",
    "setting": "setting",
    "test nll": "nll",
    "+-": "half_interval",
    "bend %": "bend",
    "transport": "transport",
    "J": "objective",
    "steps": "steps",
    "seconds": "seconds",
    "status": "status",
}


def run(data: Table, settings: dict[str, Any], seconds: float | None) -> dict[str, Any]:
    """Train, within so many seconds or to the settings' own end, and test."""
    start = time.perf_counter()
    model = OTFlow(**{"random_state": 0, "verbose": False} | settings)
    validation = data.validation[:VALIDATION_ROWS]
    if seconds is None:
        model.fit(data.train, X_val=validation)
    else:
        fit_within(model.set_params(patience=10**6), data.train, validation, seconds)
    spent = time.perf_counter() - start
    nll, half = interval(model.score_samples(data.test))
    pushed = model.flow_.push(model.standardizer_.forward(data.test))
    transport, bend = (float(np.mean(c)) for c in (pushed.transport, pushed.straightness))
    return {
        "set": data.name,
        "setting": json.dumps(settings) if settings else "default",
        "nll": nll,
        "half_interval": half,
        "bend": 100 * bend / (2 * transport),
        "transport": transport,
        "objective": transport + model.alpha * nll,
        "steps": model.n_iter_,
        "seconds": spent,
        "status": model.status_,
    }


def main() -> None:
    """Parse the command line, train, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", default=TEN, choices=LOADERS)
    parser.add_argument("--minutes", type=float, help="of training; none: the settings' own end")
    parser.add_argument("--settings", default="[{}]", help="JSON: a list of settings")
    parser.add_argument("--data", default=DATA, help="folder")
    parser.add_argument("--json", help="append the rows to this file")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{platform.machine()}, {platform.python_version()}, JAX {jax.__version__}", flush=True)
    seconds = None if given.minutes is None else 60 * given.minutes
    rows = []
    for name in given.sets:
        data = LOADERS[name](given.data)
        for settings in json.loads(given.settings):
            rows.append(run(data, settings, seconds))
            print(rows[-1], flush=True)
            if given.json:
                with open(given.json, "a") as file:
                    file.write(json_text(rows[-1]) + "\n")
    print(table(rows, COLUMNS))


if __name__ == "__main__":
    main()
