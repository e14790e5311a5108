"""One contestant in a process of its own: JSON commands on stdin, JSON replies on stdout.

    python -m peers.worker '{"name": ..., "module": ..., "cls": ..., "options": {...}}'

Peak memory is the process's high-water mark less what it held after imports. It is read from
VmHWM, because ru_maxrss of a child starts at what its parent held when it was forked.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from peers.base import Level, Setup, interval
from peers.registry import Entry


class Session:
    """The commands. Seconds are wall-clock."""

    def __init__(self, entry: Entry):
        self.contestant = entry.create()
        self.memory_after_imports = _status_mb("VmRSS")
        self.steps = 0

    def build(self, data: str, setup: dict[str, Any]) -> dict[str, Any]:
        """Prepare training on the file's training rows."""
        self.setup, self.steps = Setup(**setup), 0
        with np.load(data) as archive:
            self.x, self.held_out = archive["train"], archive["held_out"]
            self.log_scale = float(archive["log_scale"])
        self.best = np.inf, None
        seconds = _timed(lambda: self.contestant.build(self.x, self.setup))
        return {"seconds": seconds, "levels": list(self.contestant.levels)}

    def step(self, calls: int = 1) -> dict[str, Any]:
        """Seconds of each call of `block` optimiser steps."""
        self.steps += calls * self.setup.block
        return {"seconds": [_timed(self.contestant.step) for _ in range(calls)]}

    def train(self, seconds: float) -> dict[str, Any]:
        """Whole calls until the seconds or the schedule's steps are used up."""
        spent: list[float] = []
        while sum(spent) < seconds and self.steps < self.setup.total_steps:
            spent += self.step()["seconds"]
        return {"seconds": spent, "steps": self.steps}

    def keep(self, rows: int) -> dict[str, Any]:
        """nll of held-out rows; the weights stay if it is the lowest so far."""
        found = self.nll(rows)
        if found["nll"] < self.best[0]:
            self.best = found["nll"], self.contestant.weights
        return found

    def best_nll(self, data: str) -> dict[str, Any]:
        """Mean nll of the file's test rows with the kept weights, and half its 95 % interval."""
        self.contestant.weights = self.best[1]
        with np.load(data) as archive:
            scores = self.contestant.log_prob(archive["test"])
        nll, half = interval(scores)
        return {"nll": self.log_scale + nll, "half_interval": half}

    def nll(self, rows: int) -> dict[str, Any]:
        """Mean nll of held-out rows in the data's own units, nats."""
        scores = self.contestant.log_prob(self.held_out[:rows])
        return {"nll": self.log_scale + interval(scores)[0]}

    def throughput(self, kind: str, rows: int, level: Level = None) -> dict[str, Any]:
        """Seconds to score or to sample so many rows."""
        x = self._rows(kind, rows)
        return {"seconds": _timed(lambda: self._solve(kind, x, level, False))}

    def accuracy(self, kind: str, rows: int, level: Level = None) -> dict[str, Any]:
        """Mean and largest |difference| to a tight float64 solve: nats, or distance of samples."""
        x = self._rows(kind, rows)
        difference = self._solve(kind, x, level, False) - self._solve(kind, x, None, True)
        size = np.abs(difference) if kind == "score" else np.linalg.norm(difference, axis=1)
        return {"mean": float(size.mean()), "max": float(size.max())}

    def memory(self) -> dict[str, Any]:
        """Peak resident memory above that after imports, MB."""
        return {"peak_mb": max(0.0, _status_mb("VmHWM") - self.memory_after_imports)}

    def matmul(self, size: int, repeats: int) -> dict[str, Any]:
        """GFLOP/s of the best of several float32 products of square matrices."""
        self.contestant.matmul(size)
        best = min(_timed(lambda: self.contestant.matmul(size)) for _ in range(repeats))
        return {"gflops": 2e-9 * size**3 / best}

    def first_fit(self, data: str, setup: dict[str, Any]) -> dict[str, Any]:
        """The first optimiser step of this process."""
        with np.load(data) as archive:
            x = archive["train"]
        return {"seconds": _timed(lambda: self.contestant.first_fit(x, Setup(**setup)))}

    def _rows(self, kind: str, rows: int) -> np.ndarray:
        if kind == "score":
            return np.resize(self.held_out, (rows, self.held_out.shape[1]))
        rng = np.random.default_rng(0)
        return rng.standard_normal((rows, self.x.shape[1]), dtype=np.float32)

    def _solve(self, kind: str, x: np.ndarray, level: Level, tight: bool) -> np.ndarray:
        solve = self.contestant.log_prob if kind == "score" else self.contestant.sample
        return solve(x, level, tight)


def _timed(function: Any) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _status_mb(field: str) -> float:
    """A field of /proc/self/status in MB; elsewhere ru_maxrss, the peak, for either."""
    path = Path("/proc/self/status")
    if path.exists():
        line = next(line for line in path.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Answer commands until stdin closes."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints stays out of the replies
    session: Session | None = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if session is None:
                entry = json.loads(sys.argv[1])
                session = Session(Entry(**{**entry, "requires": tuple(entry["requires"])}))
            name = command.pop("do")
            reply = {} if name == "start" else getattr(session, name)(**command)
        except Exception as error:
            text = str(error).strip() or "no message"
            reply = {"error": f"{type(error).__name__}: {text.splitlines()[0][:200]}"}
        print(json.dumps(reply), file=replies)


if __name__ == "__main__":
    main()
