"""Cells from one time to the next: W2 between moved held-out cells and held-out cells.

    python benchmarks/between.py --data FOLDER            # both sets, 3 seeds
    python benchmarks/between.py --data FOLDER --quick    # one step of one set, one seed

Contestants, each fitted on 80 % of the cells of two successive times and applied to the other 20 %:
  ours       otflow.transport_between
  discrete   POT's exact plan; a held-out cell moves as its nearest training cell's barycentre does
  ot-cfm     torchcfm's minibatch optimal-transport flow matching, for as many seconds as ours took
  identity   nothing moves
  floor      two halves of the held-out target cells: what a perfect map scores at half the rows
All W2 are exact discrete transport on equally many rows (`floor` has fewer: its bias is larger).
"""

import argparse
import itertools
import os
import platform
import time
import warnings
from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree

from otflow import datasets, transport_between
from otflow.estimator.between import sample_w2
from otflow.reference import discrete
from otflow.support.jsontext import json_text
from tables import DATA

SETS = {"embryoid_body": datasets.embryoid_body, "sc_lineage_2d": datasets.sc_lineage_2d}
NAMES = ("ours", "discrete", "ot-cfm", "identity", "floor")


def halves(x: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """80 % to train, 20 % held out."""
    x = x[rng.permutation(len(x))]
    cut = int(0.8 * len(x))
    return x[:cut], x[cut:]


def discrete_map(x: np.ndarray, y: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Barycentric map of the exact plan, its displacement carried over from the nearest cell."""
    displacement = discrete(x, y).map() - x
    return held + displacement[cKDTree(x).query(held)[1]]


def flow_matching(
    x: np.ndarray, y: np.ndarray, held: np.ndarray, seconds: float, seed: int
) -> np.ndarray:
    """torchcfm's exact optimal-transport conditional flow matching, then 100 Euler steps."""
    from maps import matching

    streams = [_batches(rows, matching.BATCH, [seed, k]) for k, rows in enumerate((x, y))]
    return matching.along(matching.train(*streams, x.shape[1], seconds, seed), 1)(held)


def _batches(rows: np.ndarray, size: int, seed: list[int]) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    while True:
        yield rows[rng.integers(len(rows), size=size)]


def compare(x: np.ndarray, y: np.ndarray, seed: int, settings: dict) -> dict:
    """W2 of every contestant, seconds of ours, and the shares that a certificate proves."""
    rng = np.random.default_rng(seed)
    (x, x_held), (y, y_held) = halves(x, rng), halves(y, rng)
    start = time.perf_counter()
    ours = transport_between(x, y, seed=seed, **settings)
    seconds = time.perf_counter() - start
    half = len(y_held) // 2
    k = min(len(x_held), len(y_held))
    moved = {
        "ours": ours.transform(x_held),
        "discrete": discrete_map(x, y, x_held),
        "ot-cfm": flow_matching(x, y, x_held, seconds, seed),
        "identity": x_held,
    }
    row = {name: sample_w2(rows, y_held, k, seed) for name, rows in moved.items()}
    row["floor"] = sample_w2(y_held[:half], y_held[half : 2 * half], half, seed)
    certificate = ours.certify(x_held, y_held, seconds=20.0)
    row["width"] = certificate.relative_width
    row["p"] = certificate.line("T(X) against Y, MMD").value
    components = len(ours.model.flow_.target.log_weights)
    return row | {"rows": k, "seconds": seconds, "components": components}


def line(name: str, rows: list[dict]) -> str:
    """Mean and standard error over seeds of every contestant."""
    cells = []
    for contestant in NAMES:
        values = np.array([row[contestant] for row in rows])
        cells.append(f"{values.mean():.3f}")
        if len(values) > 1:
            cells[-1] += f" +- {values.std(ddof=1) / np.sqrt(len(values)):.3f}"
    seconds, width = (np.mean([row[k] for row in rows]) for k in ("seconds", "width"))
    p = min(row["p"] for row in rows)
    return f"| {name} | {' | '.join(cells)} | {seconds:.0f} | {100 * width:.1f} | {p:.3f} |"


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=DATA, help="folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--json", help="append every row to this file, one JSON object a line")
    parser.add_argument("--quick", action="store_true", help="one step, one seed, short training")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", module="sklearn")
    print(f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}\n")
    heads = ("step", *NAMES, "seconds", "certificate width %", "least p of MMD")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    settings = {"max_iter": 100, "width": 32} if given.quick else {}
    for name in given.sets[:1] if given.quick else given.sets:
        cells = SETS[name](given.data)
        for a, b in list(itertools.pairwise(cells.times))[: 1 if given.quick else None]:
            rows = []
            for seed in range(1 if given.quick else given.seeds):
                rows.append(compare(cells.at(a), cells.at(b), seed, settings))
                if given.json:
                    with open(given.json, "a") as file:
                        found = {"set": name, "from": a, "to": b, "seed": seed} | rows[-1]
                        file.write(json_text(found) + "\n")
            print(line(f"{name} {a:g} to {b:g}", rows), flush=True)


if __name__ == "__main__":
    main()
