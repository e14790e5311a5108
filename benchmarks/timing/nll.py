"""Time to a given held-out nll.

The target is the final held-out nll of plain PyTorch OT-Flow on the toy sets, and the best that
rk4 reaches on the real ones, in the same run. A contestant's time is where its curve of held-out
nll against training seconds first crosses the target, linearly between two points, or "not
reached". Training seconds leave out scoring; they are given with the first call's compilation in
and out of them. All contestants take turns; each scores after every tenth of its seconds so far.
The budget bounds everybody but the contestant that sets the target, which uses all its steps.
"""

import dataclasses
from pathlib import Path

from peers.registry import PEERS, entries
from timing.data import ROWS, SETUPS, write_set
from timing.field import Field

TOYS = ("8gaussians", "moons", "pinwheel")
COLUMNS = {
    "contestant": "contestant",
    "target": "target",
    "s to target, compile in": "to_target_s",
    "compile out": "to_target_warm_s",
    "best nll": "best_nll",
    "final nll": "final_nll",
    "steps": "steps",
    "train s": "train_s",
    "nll error": "nll_error",
    "status": "status",
}


def run(name: str, folder: Path, quick: bool, seconds: float) -> list[dict]:
    """Rows with a curve each, [[training seconds, nll], ...], and the times to the target."""
    rows = 2000 if quick else ROWS
    data = write_set(name, folder, rows)
    if data is None:
        return [{"contestant": name, "status": "no data: shared/data is not here"}]
    own = SETUPS[name]
    total = min(60, own.total_steps) if quick else own.total_steps
    batch = 256 if quick else own.batch
    setup = dataclasses.replace(own, block=5 if quick else 10, batch=batch, total_steps=total)
    leader = "plain-torch" if name in TOYS else "rk4"
    with Field(entries("conforming", "conforming-1", "rk4") + PEERS, f"nll {name}") as field:
        field.build(data, setup)
        for row in field.rows.values():
            row.update(curve=[], calls=[], steps=0)
        running = set(field.workers)
        while running & set(field.workers):
            for turn in field.turns():
                if turn.row["contestant"] in running:
                    with turn:
                        budget = float("inf") if turn.row["contestant"] == leader else seconds
                        if not _advance(turn, budget, setup.total_steps, rows):
                            running.discard(turn.row["contestant"])
        for turn in field.turns():
            with turn:
                points = 64 if quick else 512
                turn.row["nll_error"] = turn.call("accuracy", kind="score", rows=points)["mean"]
    found = list(field.rows.values())
    _finish(found, leader, best=name not in TOYS)
    return found


def _advance(turn, budget: float, total_steps: int, rows: int) -> bool:
    """Train until the next point of the curve and score; False where there is no more to do."""
    row = turn.row
    spent = sum(row["calls"])
    found = turn.call("train", seconds=max(0.5, 0.1 * spent))
    row["calls"] += found["seconds"]
    row["steps"] = found["steps"]
    row["curve"].append([sum(row["calls"]), turn.call("nll", rows=rows)["nll"]])
    return row["curve"][-1][0] < budget and row["steps"] < total_steps


def _finish(rows: list[dict], leader: str, best: bool) -> None:
    """Set the target from the leader's curve, and everybody's time to it."""
    for row in rows:
        if row.get("curve"):
            row["final_nll"] = row["curve"][-1][1]
            row["best_nll"] = min(nll for _, nll in row["curve"])
            row["train_s"] = row["curve"][-1][0]
            calls = row["calls"]
            later = sorted(calls[1:])
            row["compile_s"] = max(0.0, calls[0] - later[len(later) // 2]) if later else None
    first = next(row for row in rows if row["contestant"] == leader)
    target = first.get("best_nll" if best else "final_nll")
    for row in rows:
        row["target"] = target
        if target is None or not row.get("curve"):
            continue
        row["to_target_s"] = crossing(row["curve"], target)
        reached = row["to_target_s"] is not None and row["compile_s"] is not None
        if reached:
            row["to_target_warm_s"] = max(0.0, row["to_target_s"] - row["compile_s"])
        elif row["status"] == "ok" and row["to_target_s"] is None:
            row["status"] = "target not reached"


def crossing(curve: list[list[float]], target: float) -> float | None:
    """Seconds at which the nll first is at most the target, linear between points; None: never."""
    before = None
    for seconds, nll in curve:
        if nll <= target:
            if before is None or before[1] == nll:
                return seconds
            share = (before[1] - target) / (before[1] - nll)
            return before[0] + share * (seconds - before[0])
        before = (seconds, nll)
    return None
