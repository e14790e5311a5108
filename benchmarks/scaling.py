"""Strong and weak scaling over devices and processes, a cost model, and a plan drawn from it.

    python benchmarks/scaling.py            # about 10 minutes on two idle cores
    python benchmarks/scaling.py --quick

A step's seconds are the median of blocks after compilation. The model, fitted by least squares in
relative error with coefficients >= 0:

    seconds = a + b * flops / devices + c * bytes * (processes > 1)

flops = batch * n_steps * (2 m^2 d depth + 6 m d): a step's largest products up to a common factor;
bytes = 4 * parameters: the gradients that a sum over processes moves. What it says of machines that
were not measured is a plan.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time

import numpy as np

SIZES = ((6, 32), (6, 64), (16, 64), (32, 64))  # d, width
N_STEPS = 4


def features(d: int, width: int, batch: int) -> tuple[float, float]:
    """(flops up to a factor, bytes of gradients) of a step."""
    flops = batch * N_STEPS * (2.0 * width**2 * d + 6.0 * width * d)
    parameters = width * (d + 1) + width**2 + 3 * width + min(10, d + 1) * (d + 1) + d + 2
    return flops, 4.0 * parameters


def work(d: int, width: int, batch: int, steps: int) -> None:
    """One process: the median seconds of a step, printed by process 0."""
    from otflow.parallel import join_processes

    place = join_processes(timeout=120)
    from otflow import OTFlow

    x = np.random.default_rng(0).standard_normal((4 * batch, d)) ** 3
    flow = OTFlow(
        width=width,
        n_steps=N_STEPS,
        batch_size=batch,
        max_iter=steps,
        patience=10**6,
        random_state=0,
        verbose=False,
    )
    stamps: list[float] = []
    flow.fit(x, X_val=x[:256], on_validation=lambda row: stamps.append(time.perf_counter()))
    if place.process_id == 0:
        print("seconds", float(np.median(np.diff(stamps)[1:])) / 25)


def measure(d: int, width: int, batch: int, steps: int, devices: int, processes: int) -> float:
    """Median seconds of a step; `devices` in all, shared out over the processes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = []
    for i in range(processes):
        environment = os.environ | {"OTFLOW_COORDINATOR": f"127.0.0.1:{port}"}
        environment |= {"OTFLOW_PROCESSES": str(processes), "OTFLOW_PROCESS": str(i)}
        environment |= {"JAX_NUM_CPU_DEVICES": str(devices // processes)}
        words = [sys.executable, __file__, "--work", json.dumps([d, width, batch, steps])]
        pipe = subprocess.PIPE
        running.append(subprocess.Popen(words, env=environment, stdout=pipe, text=True))
    told = [process.communicate(timeout=1800)[0] for process in running]
    line = next(line for line in told[0].splitlines() if line.startswith("seconds"))
    return float(line.split()[1])


def main() -> int:
    """Measure, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(*json.loads(given.work))
        return 0
    sizes, batch, steps = (SIZES[:2], 512, 75) if given.quick else (SIZES, 2048, 150)
    rows = []
    print("| d | width | batch | devices | processes | step ms | speed-up |")
    print("|---|---|---|---|---|---|---|")
    for d, width in sizes:
        base = None
        for n, devices, processes in ((1, 1, 1), (1, 2, 1), (1, 2, 2), (2, 2, 1), (2, 2, 2)):
            size = batch * n  # n = 2: weak scaling, as many rows a device as on one
            seconds = measure(d, width, size, steps, devices, processes)
            base = base or seconds
            rows.append((d, width, size, devices, processes, seconds))
            shape = f"| {d} | {width} | {size} | {devices} | {processes} "
            print(f"{shape}| {1e3 * seconds:.2f} | {n * base / seconds:.2f} |", flush=True)
    plan(fit(rows))
    return 0


def fit(rows: list[tuple]) -> np.ndarray:
    """a, b, c of the model."""
    from scipy.optimize import nnls

    table, seconds = np.array([columns(*row[:5]) for row in rows]), np.array([r[5] for r in rows])
    found = nnls(table / seconds[:, None], np.ones(len(rows)))[0]
    error = np.abs(table @ found / seconds - 1)
    print(f"\nseconds = {found[0]:.2e} + {found[1]:.2e} flops/devices + {found[2]:.2e} bytes")
    print(f"fitted to measured: median error {np.median(error):.0%}, largest {error.max():.0%}")
    return found


def columns(d: int, width: int, batch: int, devices: int, processes: int) -> list[float]:
    """The model's terms."""
    flops, moved = features(d, width, batch)
    return [1.0, flops / devices, moved * (processes > 1)]


def plan(found: np.ndarray) -> None:
    """Extrapolation to machines that were not measured."""
    print("\nPLAN, not measured: a step of d = 64, width 128, batch 65,536 on CPU cores like these")
    for devices, processes in ((2, 1), (8, 1), (64, 64)):
        seconds = float(np.dot(columns(64, 128, 65536, devices, processes), found))
        print(f"  {devices} devices, {processes} process(es): {1e3 * seconds:.1f} ms")
    print("  a network slower than loopback raises the last term, a GPU lowers the second")


if __name__ == "__main__":
    sys.exit(main())
