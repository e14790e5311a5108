"""Work and precision: error of the nll against the seconds it takes to score.

One rk4 network trained on 8gaussians is scored in float32 with the trace at all stages and at
Simpson's nodes, at 1 to 64 steps; conforming networks at 1 to 8 steps, each trained as such, are
scored by their own map. The error is the mean |nll difference| to the same model in float64: the
ODE solved by 64 steps for rk4, the discrete map itself for conforming.
"""

import dataclasses
import statistics
from pathlib import Path
from typing import Any

from peers.registry import conforming, entries
from timing.data import SETUPS, write_set
from timing.field import Field

COLUMNS = {
    "contestant": "contestant",
    "time steps": "n_steps",
    "seconds": "seconds",
    "mean nll error": "nll_error",
    "largest": "nll_error_max",
    "status": "status",
}


def run(folder: Path, quick: bool) -> list[dict]:
    """One row a contestant and number of steps."""
    data = write_set("8gaussians", folder)
    setup = dataclasses.replace(SETUPS["8gaussians"], block=10)
    calls, points, rounds = (2, 2000, 2) if quick else (60, 20_000, 5)
    counts = [1, 4, 16] if quick else [1, 2, 4, 8, 16, 32]
    steps = (1, 4) if quick else (1, 2, 4, 8)
    with Field(entries("rk4") + tuple(conforming(k) for k in steps), "precision") as field:
        field.build(data, setup)
        for turn in field.turns():
            with turn:
                turn.call("step", calls=calls)
                turn.row["found"] = {}
                for level in _levels(turn.row, counts):
                    asked = {"kind": "score", "rows": 256 if quick else 2000, "level": level}
                    turn.row["found"][str(level)] = turn.call("accuracy", **asked)
                    turn.call("throughput", kind="score", rows=points, level=level)
        for _ in range(rounds):
            for turn in field.turns():
                with turn:
                    for level in _levels(turn.row, counts):
                        asked = {"kind": "score", "rows": points, "level": level}
                        seconds = turn.call("throughput", **asked)["seconds"]
                        found = turn.row["found"][str(level)]
                        found.setdefault("seconds", []).append(seconds)
    return [new for row in field.rows.values() for new in _rows(row, counts)]


def _levels(row: dict, counts: list[int]) -> list[Any]:
    if row["contestant"] != "rk4":
        return [None]
    return [[n, trace] for trace in ("stages", "simpson") for n in counts]


def _rows(row: dict, counts: list[int]) -> list[dict]:
    if row["status"] != "ok":
        return [{"contestant": row["contestant"], "status": row["status"]}]
    rows = []
    for level in _levels(row, counts):
        found = row["found"][str(level)]
        name, _, n_steps = row["contestant"].partition("-")
        if level is not None:
            n_steps, name = level[0], f"rk4, {level[1]}"
        new = {"contestant": name, "n_steps": int(n_steps), "status": row["status"]}
        new |= {"nll_error": found["mean"], "nll_error_max": found["max"]}
        rows.append(new | {"seconds": statistics.median(found["seconds"])})
    return rows


def plot(rows: list[dict], path: str) -> None:
    """Mean nll error against seconds, both logarithmic, a line a contestant."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name in dict.fromkeys(row["contestant"] for row in rows if "seconds" in row):
        mine = [row for row in rows if row["contestant"] == name]
        axes.plot([r["seconds"] for r in mine], [r["nll_error"] for r in mine], "o-", label=name)
        for r in mine:
            at = (r["seconds"], r["nll_error"])
            axes.annotate(str(r["n_steps"]), at, textcoords="offset points", xytext=(4, 4))
    axes.set(xscale="log", yscale="log", ylabel="mean error of the nll, nats")
    axes.set_xlabel("seconds to score (labels: time steps)")
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
