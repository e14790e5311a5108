"""Show 4: the share of the machine's matrix-product rate that a training step reaches."""

from pathlib import Path

from peers.registry import entries
from timing.data import Shape, write_shape
from timing.field import Field
from timing.flops import step_flops
from timing.step import SHAPES, time_steps

COLUMNS = {
    "contestant": "contestant",
    "step ms": "step_ms",
    "GFLOP a step": "gflop",
    "GFLOP/s": "gflops",
    "limit GFLOP/s": "limit",
    "share of limit": "share",
    "status": "status",
}


def run(folder: Path, quick: bool) -> list[dict]:
    """On the d = 43 shape; the limit is the fastest product of XLA or PyTorch, before or after."""
    shape = Shape(43, 64, 200, 6) if quick else SHAPES[2]
    data = write_shape(shape.d, shape.n, folder)
    names = ("conforming", "conforming-1", "rk4", "rk4-stages", "plain-torch")
    limit = _limit(quick)
    rows = time_steps(entries(*names), data, shape.setup, quick, accuracy=False)
    limit = max(limit, _limit(quick))
    for row in rows:
        if row["status"] == "ok":
            n_steps = {"conforming": 4, "conforming-1": 1}.get(row["contestant"], shape.n_steps)
            flops = step_flops(row["contestant"], shape.d, shape.width, shape.n, n_steps)
            row["gflop"] = 1e-9 * flops
            row["gflops"] = row["gflop"] / (1e-3 * row["step_ms"])
            row["limit"], row["share"] = limit, row["gflops"] / limit
    return rows


def _limit(quick: bool) -> float:
    """Best float32 rate of square products, GFLOP/s."""
    with Field(entries("rk4", "plain-torch"), "limit") as field:
        for turn in field.turns():
            with turn:
                asked = {"size": 1024 if quick else 2048, "repeats": 5 if quick else 20}
                turn.row["gflops"] = turn.call("matmul", **asked)["gflops"]
    return max(row.get("gflops", 0.0) for row in field.rows.values())
