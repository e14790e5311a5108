"""Show 1: step time and peak memory at the sizes of the published code's figures."""

import statistics
from pathlib import Path

from peers.base import Setup
from peers.registry import OURS, PEERS, Entry, rk4
from timing.data import Shape, write_shape
from timing.field import Field

SHAPES = (Shape(2, 32, 5000, 8), Shape(6, 128, 2000, 10), Shape(43, 256, 500, 6))
PUBLISHED = {SHAPES[0]: 312.0, SHAPES[1]: 1480.0, SHAPES[2]: 3800.0}  # ms; peak 2.1 to 3.0 GB
QUICK = Shape(2, 32, 1000, 8)
COLUMNS = {
    "contestant": "contestant",
    "time steps": "n_steps",
    "step ms": "step_ms",
    "compile s": "compile_s",
    "peak MB": "peak_mb",
    "mean nll error": "nll_error",
    "status": "status",
}


def run(shape: Shape, folder: Path, quick: bool) -> list[dict]:
    """Rows of one shape: medians over rounds in which all take turns."""
    data = write_shape(shape.d, shape.n, folder)
    rows = time_steps(OURS + PEERS, data, shape.setup, quick, accuracy=True)
    for row in rows:
        row["n_steps"] = _steps(row["contestant"], shape.n_steps)
    stages = next(row for row in rows if row["contestant"] == "rk4-stages")
    matching = stages.get("matching_steps")
    if matching is not None:
        entry = rk4("rk4, equal error", matching)
        rows += time_steps((entry,), data, shape.setup, quick, accuracy=False)
        rows[-1]["n_steps"], rows[-1]["nll_error"] = matching, stages["matching_error"]
    if shape in PUBLISHED:
        row = {"contestant": "published code's figures", "step_ms": PUBLISHED[shape]}
        rows.append(row | {"n_steps": shape.n_steps, "status": "cited; peak 2100 to 3000 MB"})
    return rows


def time_steps(
    entries: tuple[Entry, ...], data: Path, setup: Setup, quick: bool, accuracy: bool
) -> list[dict]:
    """step_ms, compile_s and peak_mb of every contestant; with accuracy, errors too."""
    rounds, calls = (2, 1) if quick else (7, 3)
    with Field(entries, "step") as field:
        field.build(data, setup)
        for turn in field.turns():
            with turn:
                turn.row["first_s"] = turn.call("step")["seconds"][0]
                turn.row["all_ms"] = []
        for _ in range(rounds):
            for turn in field.turns():
                with turn:
                    found = turn.call("step", calls=calls)["seconds"]
                    turn.row["all_ms"] += [1e3 * s / setup.block for s in found]
        for turn in field.turns():
            with turn:
                row = turn.row
                row["step_ms"] = statistics.median(row["all_ms"])
                row["compile_s"] = max(0.0, row["first_s"] - setup.block * row["step_ms"] / 1e3)
                row["peak_mb"] = turn.call("memory")["peak_mb"]
                if accuracy:
                    points = 128 if quick else 512
                    row["nll_error"] = turn.call("accuracy", kind="score", rows=points)["mean"]
                    if row["contestant"] == "rk4-stages":
                        _match(turn, setup.n_steps, points)
    return list(field.rows.values())


def _match(turn, n_steps: int, points: int) -> None:
    """The fewest Simpson steps whose error is no larger than that of the trace at all stages."""

    def error(k: int) -> float:
        level = [k, "simpson"]
        return turn.call("accuracy", kind="score", rows=points, level=level)["mean"]

    errors, low, high = {}, 1, 2 * n_steps
    while low < high:  # the error falls with k
        middle = (low + high) // 2
        errors[middle] = error(middle)
        if errors[middle] <= turn.row["nll_error"]:
            high = middle
        else:
            low = middle + 1
    turn.row["matching_steps"] = low
    turn.row["matching_error"] = errors[low] if low in errors else error(low)


def _steps(name: str, n_steps: int) -> int | None:
    own = {"conforming": 4, "conforming-1": 1}
    timed = ("rk4", "rk4-stages", "plain-torch", "published")
    return own.get(name, n_steps if name in timed else None)
