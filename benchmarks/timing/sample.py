"""Show 3: points sampled and scored per second, and how exactly.

Every contestant trains on 8gaussians for the same wall-clock seconds, then samples and scores at
each of its levels, in turns. Errors are against the same model solved tightly in float64: mean
|log p difference| in nats, mean distance of samples in standardised units. "At equal accuracy" is
the fastest level whose mean error is at most TOLERANCE; a flow without levels is taken as it is.
"""

import dataclasses
import statistics
from pathlib import Path

from peers.registry import PEERS, entries
from timing.data import SETUPS, write_set
from timing.field import Field

TOLERANCE = 1e-3
COLUMNS = {
    "contestant": "contestant",
    "level": "level",
    "samples/s": "sample_rate",
    "mean sample error": "sample_error",
    "scores/s": "score_rate",
    "mean nll error": "score_error",
    "status": "status",
}


def run(folder: Path, quick: bool, seconds: float) -> list[dict]:
    """One row a contestant and level, and rows "at equal accuracy"."""
    points, rounds = (1000, 2) if quick else (20_000, 5)
    data = write_set("8gaussians", folder)
    own = SETUPS["8gaussians"]
    setup = dataclasses.replace(own, block=5, batch=256 if quick else own.batch)
    with Field(entries("conforming", "conforming-1", "rk4") + PEERS, "sample") as field:
        field.build(data, setup)
        for turn in field.turns():
            with turn:
                turn.call("step")  # compilation is not training
                turn.call("train", seconds=seconds)
                for level in _levels(turn.row, quick):
                    for kind in ("sample", "score"):
                        turn.call("throughput", kind=kind, rows=points, level=level)
        for _ in range(rounds):
            for turn in field.turns():
                with turn:
                    _round(turn, points, quick)
        for turn in field.turns():
            with turn:
                for level in _levels(turn.row, quick):
                    for kind in ("sample", "score"):
                        asked = {"kind": kind, "rows": 128 if quick else 512, "level": level}
                        error = turn.call("accuracy", **asked)["mean"]
                        turn.row["found"][f"{kind} {level}"]["error"] = error
    rows = [row for found in field.rows.values() for row in _rows(found, points, quick)]
    return rows + _equal(rows)


def _levels(row: dict, quick: bool) -> list:
    return row["levels"][1::2] if quick and len(row["levels"]) > 1 else row["levels"]


def _round(turn, points: int, quick: bool) -> None:
    found = turn.row.setdefault("found", {})
    for level in _levels(turn.row, quick):
        for kind in ("sample", "score"):
            seconds = turn.call("throughput", kind=kind, rows=points, level=level)["seconds"]
            found.setdefault(f"{kind} {level}", {"seconds": []})["seconds"].append(seconds)


def _rows(row: dict, points: int, quick: bool) -> list[dict]:
    if row["status"] != "ok":
        return [{"contestant": row["contestant"], "status": row["status"]}]
    rows = []
    for level in _levels(row, quick):
        new = {"contestant": row["contestant"], "level": _label(level), "status": "ok"}
        for kind in ("sample", "score"):
            found = row["found"][f"{kind} {level}"]
            new[f"{kind}_rate"] = points / statistics.median(found["seconds"])
            new[f"{kind}_error"] = found["error"]
        rows.append(new)
    return rows


def _equal(rows: list[dict]) -> list[dict]:
    """The fastest rates of every contestant among the levels that are exact enough."""
    best = []
    for name in dict.fromkeys(row["contestant"] for row in rows if row["status"] == "ok"):
        new = {"contestant": name, "level": f"error <= {TOLERANCE:g}", "status": "equal accuracy"}
        for kind in ("sample", "score"):
            exact = [r for r in rows if r["contestant"] == name and "level" in r]
            exact = [r for r in exact if r[f"{kind}_error"] <= TOLERANCE]
            if exact:
                fastest = max(exact, key=lambda r: r[f"{kind}_rate"])
                new[f"{kind}_rate"] = fastest[f"{kind}_rate"]
                new[f"{kind}_error"] = fastest[f"{kind}_error"]
        best.append(new)
    return best


def _label(level) -> str:
    if level is None:
        return "as trained"
    return f"{level[0]} steps" if isinstance(level, list) else f"{level:g}"
