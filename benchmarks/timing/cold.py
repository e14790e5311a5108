"""Cold starts: from launching Python to the end of the first optimiser step.

Ours fits one step through `OTFlow.fit`, validation and its compilation included; the others build
and take one step. Our schemes appear three times: without JAX's persistent compilation cache,
with an empty one, and with the one just filled.
"""

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

from peers.registry import PEERS, Entry, entries
from timing.data import SETUPS, write_set
from timing.field import Worker, WorkerError

COLUMNS = {
    "contestant": "contestant",
    "compilation cache": "cache",
    "cold start s": "cold_s",
    "of it build and step s": "step_s",
    "status": "status",
}


def run(folder: Path, quick: bool) -> list[dict]:
    """Medians over rounds in which all take turns."""
    data = write_set("8gaussians", folder)
    rows: dict[tuple[str, str], dict] = {}
    names = ("conforming",) if quick else ("conforming", "rk4")
    for _ in range(1 if quick else 3):
        with tempfile.TemporaryDirectory() as cache:
            off = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
            on = {
                "JAX_ENABLE_COMPILATION_CACHE": "true",
                "JAX_COMPILATION_CACHE_DIR": cache,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
            for state, environment in (("none", off), ("empty", on), ("filled", on)):
                for entry in entries(*names):
                    _start(entry, state, environment, data, rows)
        for entry in PEERS:
            _start(entry, "none", off, data, rows)
    for row in rows.values():
        for name in ("cold_s", "step_s"):
            if row[name]:
                row[name] = statistics.median(row[name])
            else:
                del row[name]
    return list(rows.values())


def _start(entry: Entry, state: str, environment: dict[str, str], data: Path, rows: dict) -> None:
    """One fresh process, its seconds added to the row."""
    new = {"contestant": entry.name, "cache": state, "cold_s": [], "step_s": []}
    row = rows.setdefault((entry.name, state), new | {"status": entry.missing() or "ok"})
    if row["status"] != "ok":
        return
    start = time.perf_counter()
    worker = Worker(entry, environment)
    try:
        setup = dataclasses.asdict(SETUPS["8gaussians"])
        found = worker.call("first_fit", data=str(data), setup=setup)
        row["cold_s"].append(time.perf_counter() - start)
        row["step_s"].append(found["seconds"])
    except WorkerError as error:
        row["status"] = f"failed: {error}"
    finally:
        worker.close()
