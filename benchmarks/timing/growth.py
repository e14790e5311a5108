"""Show 5: how the step time of both schemes grows with rows, dimension and width.

The exponent is a least-squares slope of log time on log size over the upper half of the sizes;
next to it the same slope of the counted matrix products (timing.flops), and what that tends to.
"""

import statistics
from pathlib import Path

import numpy as np

from peers.registry import entries
from timing.data import Shape, write_shape
from timing.field import Field
from timing.flops import step_flops

SIZES = {
    "n": [1_000, 10_000, 100_000, 1_000_000],
    "d": [2, 4, 8, 16, 32, 64, 128],
    "width": [16, 32, 64, 128, 256, 512],
}
BASES = {"n": Shape(2, 32, 0, 8), "d": Shape(0, 64, 500, 8), "width": Shape(8, 0, 500, 8)}
LIMITS = {
    ("conforming", "n"): "1", ("rk4", "n"): "1",
    ("conforming", "d"): "3 (Cholesky), 2 before", ("rk4", "d"): "1",
    ("conforming", "width"): "2", ("rk4", "width"): "2",
}  # fmt: skip
COLUMNS = {
    "contestant": "contestant",
    "axis": "axis",
    "sizes": "sizes",
    "step ms": "times",
    "exponent": "exponent",
    "counted": "counted",
    "tends to": "limit",
    "status": "status",
}


def run(folder: Path, quick: bool) -> list[dict]:
    """One row a scheme and axis."""
    rows = []
    for axis, sizes in SIZES.items():
        chosen = sizes[:2] if quick else sizes
        with Field(entries("conforming", "rk4"), f"growth {axis}") as field:
            for size in chosen:
                shape = Shape(**{**vars(BASES[axis]), axis: size})
                data = write_shape(shape.d, shape.n, folder)
                for turn in field.turns():
                    with turn:
                        _time(turn, data, shape, quick)
        rows += [_row(row, axis, chosen) for row in field.rows.values()]
    return rows


def _time(turn, data: Path, shape: Shape, quick: bool) -> None:
    """Median seconds of a step at a size; the scheme's other calls come between."""
    turn.build(data, shape.setup)
    turn.call("step")
    calls = 2 if quick else 3 if shape.n > 100_000 else 5
    seconds = statistics.median(turn.call("step", calls=calls)["seconds"])
    turn.row.setdefault("ms", []).append(1e3 * seconds)
    n_steps = 4 if turn.row["contestant"] == "conforming" else shape.n_steps
    flops = step_flops(turn.row["contestant"], shape.d, shape.width, shape.n, n_steps)
    turn.row.setdefault("flops", []).append(flops)


def _row(row: dict, axis: str, sizes: list[int]) -> dict:
    new = {"contestant": row["contestant"], "axis": axis, "status": row["status"]}
    new["sizes"] = " ".join(f"{size:g}" for size in sizes)
    times = row.get("ms", [])
    new["times"] = " ".join(f"{t:.3g}" for t in times)
    new["limit"] = LIMITS[row["contestant"], axis]
    if len(times) == len(sizes):
        new["exponent"] = exponent(sizes, times)
        new["counted"] = exponent(sizes, row["flops"])
    return new


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope of log value on log size over the upper half, at least two points."""
    keep = min(len(sizes), max(2, -(-len(sizes) // 2)))
    return float(np.polyfit(np.log(sizes[-keep:]), np.log(values[-keep:]), 1)[0])
