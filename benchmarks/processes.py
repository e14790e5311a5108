"""Two processes on loopback against one: loss curves, step time, a kill, a resumption.

    python benchmarks/processes.py --data ../shared/data/power.npz     # POWER's 6-d set
    python benchmarks/processes.py --quick                             # synthetic

Every process has one device. POWER is prepared as in the MAF paper (shared/data/README.md); other
.npz, .npy and .csv files are used as they are, the last tenth for validation.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def prepared(path: Path | None, rows: int) -> np.ndarray:
    """Training rows followed by a tenth of validation rows."""
    if path is None:
        rng = np.random.default_rng(0)
        return rng.standard_normal((rows, 6)) @ rng.standard_normal((6, 6)) + rng.exponential(
            size=(rows, 6)
        )
    if path.name == "power.npz":
        x = np.load(path)["X"].astype(np.float64)
        rng = np.random.RandomState(42)
        rng.shuffle(x)
        x = power_columns(x, rng)
        x = x[: int(0.9 * len(x))]  # without the test rows
        return x[:rows] if rows else x
    from otflow.data.tables import read_table

    x = read_table(path).values
    return x[:rows] if rows else x


def power_columns(x: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Columns 3 and 1 dropped, noise within the rounding steps: voltage, active power, meters."""
    x = np.delete(np.delete(x, 3, axis=1), 1, axis=1)
    n = len(x)
    voltage = 0.01 * rng.rand(n, 1)
    power = 0.001 * rng.rand(n, 1)
    meters = rng.rand(n, 3)
    return x + np.hstack((power, voltage, meters, np.zeros((n, 1))))


def work(folder: Path, options: dict, resume: bool, victim: int) -> None:
    """One process: train and write the history."""
    from otflow.parallel import join_processes

    place = join_processes(timeout=120, heartbeat=30)
    from otflow import OTFlow

    x = np.load(folder / "data.npy")
    cut = int(0.9 * len(x))

    def on_validation(row: dict) -> None:
        if row["iteration"] >= options["max_iter"] // 2 and place.process_id == victim:
            os.kill(os.getpid(), 9)

    watch = {}
    if resume:
        watch = {"checkpoint": folder / "state", "checkpoint_every": 1, "resume": True}
    flow = OTFlow(random_state=0, verbose=False, patience=10**6, **options)
    flow.fit(x[:cut], X_val=x[cut:], on_validation=on_validation, **watch)
    if place.process_id == 0:
        (folder / f"{place.n_processes}.json").write_text(json.dumps(flow.history_))


def job(n: int, folder: Path, options: dict, resume: bool = False, victim: int = -1) -> list:
    """Run a job; (exit code, last line of the errors) of each process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = []
    for i in range(n):
        environment = os.environ | {"OTFLOW_COORDINATOR": f"127.0.0.1:{port}"}
        environment |= {"OTFLOW_PROCESSES": str(n), "OTFLOW_PROCESS": str(i)}
        environment |= {"JAX_NUM_CPU_DEVICES": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        told = json.dumps([str(folder), options, resume, victim])
        words = [sys.executable, __file__, "--work", told]
        running.append(subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True))
    found = []
    for process in running:
        _, errors = process.communicate(timeout=3600)
        found.append((process.returncode, (errors.strip().splitlines() or [""])[-1]))
    return found


def curves(folder: Path, n: int) -> tuple[dict[str, np.ndarray], float]:
    """The history that n processes wrote, and the median of a step's seconds."""
    history = json.loads((folder / f"{n}.json").read_text())
    seconds, steps = np.diff(history["seconds"])[1:], np.diff(history["iteration"])[1:]
    names = ("objective", "val_transport", "val_nll", "train_nll", "train_transport")
    found = {name: np.array(history[name], float)[1:] for name in names}
    return found, float(np.median(seconds / steps))


def difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """Largest relative difference between curves; infinite values must be infinite in both."""
    pairs = [np.stack([a[k], b[k]]) for k in a]
    pairs = [pair[:, pair[0] != pair[1]] for pair in pairs]
    return max(
        (float((abs(p[0] - p[1]) / np.maximum(abs(p[1]), 1e-12)).max()) for p in pairs if p.size),
        default=0.0,
    )


def main() -> int:
    """Print what was found; 1 where a job ended as it should not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=200_000, help="0: all of a file")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        folder, *rest = json.loads(given.work)
        work(Path(folder), *rest)
        return 0
    rows, steps = (5000, 75) if given.quick else (given.rows, given.steps)
    base = {"width": 16 if given.quick else 64, "max_iter": steps, "batch_size": 1023}
    ok = True
    with tempfile.TemporaryDirectory(prefix="otflow-processes-") as name:
        folder = Path(name)
        x = prepared(given.data, rows)
        np.save(folder / "data.npy", x)
        print(f"{len(x):,} rows, {x.shape[1]} columns, batches of 1,023, {steps} steps")
        for dtype in ("float32", "float64"):
            options = base | {"dtype": dtype}
            codes = [code for n in (1, 2) for code, _ in job(n, folder, options)]
            ok &= codes == [0, 0, 0]
            (one, alone), (two, shared) = curves(folder, 1), curves(folder, 2)
            print(
                f"{dtype}: largest relative difference of the loss curves "
                f"{difference(two, one):.1e}; step {1e3 * alone:.1f} ms on one process, "
                f"{1e3 * shared:.1f} ms on two"
            )
        start = time.perf_counter()
        (survivor, error), (killed, _) = job(2, folder, options, True, victim=1)
        print(f"process 1 killed (exit {killed}) at step {steps // 2}: process 0 exit {survivor}")
        print(f"  {error}  [{time.perf_counter() - start:.0f} s for the job]")
        ended = job(1, folder, options, True)
        resumed, _ = curves(folder, 1)
        print(
            f"resumed on one process: exit {ended[0][0]}, difference {difference(resumed, one):.1e}"
        )
        ok &= survivor == 70 and ended[0][0] == 0
    return int(not ok)


if __name__ == "__main__":
    sys.exit(main())
