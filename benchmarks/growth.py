"""Cells on a day that was left out, from a day before and one after, with and without growth.

    python benchmarks/growth.py FOLDER [--deltas 1 2 1000] [--seeds 5]

FOLDER holds sc_lineage_2d.npz (docs/data.md). For every seed 90 % of the cells of the first and the
last day are fitted, and where the first day's cells are halfway, with their masses, is compared by
exact transport (W2, biased upwards) with cells of the middle day, which nothing was fitted to; and
at the end with the last day's other cells. At the largest delta no mass grows: plain transport.
"""

import argparse
import math
import time

import numpy as np

from otflow import datasets, transport_between
from otflow.reference import discrete

parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("--deltas", type=float, nargs="+", default=[1.0, 2.0, 1000.0])
parser.add_argument("--seeds", type=int, default=5)
parser.add_argument("--cells", type=int, default=400, help="a side of a comparison")
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--width", type=int, default=64)
parser.add_argument("--n-steps", type=int, default=4)
parser.add_argument("--components", type=int, default=10)
options = parser.parse_args()

data = datasets.sc_lineage_2d(options.folder)
days = [data.x[data.time == day] for day in np.unique(data.time)]
print("cells a day", [len(day) for day in days])


def w2(rows, mass, held, rng):
    """W2 between some of the rows with their masses, normalised, and as many held-out cells."""
    pick = rng.permutation(len(rows))[: options.cells]
    held = held[rng.permutation(len(held))[: options.cells]]
    weights = mass[pick] / mass[pick].sum()
    return math.sqrt(2 * discrete(rows[pick], held, weights).half_w2_squared)


found = {delta: [] for delta in options.deltas}
for seed in range(options.seeds):
    rng = np.random.default_rng(seed)
    first, middle, last = (day[rng.permutation(len(day))] for day in days)
    held, last = np.split(last, [len(last) // 10])
    for delta in options.deltas:
        start = time.perf_counter()
        model = transport_between(
            first, last, growth=delta, seed=seed, max_iter=options.steps, width=options.width,
            n_steps=options.n_steps, max_components=options.components,
        )  # fmt: skip
        halfway, end = (model.at(first, t) for t in (0.5, 1.0))
        row = [w2(*halfway, middle, np.random.default_rng(seed))]
        row += [w2(*end, held, np.random.default_rng(seed)), model.evaluate(4000).miss.mean]
        found[delta].append(row)
        seconds = time.perf_counter() - start
        told = f"halfway {row[0]:.3f}, end {row[1]:.3f}, miss {row[2]:.3f}"
        print(f"seed {seed}, delta {delta:g}: {told} ({seconds:.0f} s)", flush=True)
    rows = np.ones(len(first)), np.ones(len(last))
    nothing = [w2(day, ones, middle, np.random.default_rng(seed)) for day, ones in zip(
        (first, last), rows, strict=True)]  # fmt: skip
    print(f"seed {seed}: first day {nothing[0]:.3f}, last day {nothing[1]:.3f} to the middle one")

for delta, table in found.items():
    mean, error = np.mean(table, axis=0), np.std(table, axis=0, ddof=1) / math.sqrt(len(table))
    named = zip(("halfway", "end", "miss"), mean, error, strict=True)
    print(f"delta {delta:g}:", ", ".join(f"{n} {m:.3f} +- {e:.3f}" for n, m, e in named))
