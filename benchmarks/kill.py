"""Kill tests: `otflow fit --checkpoint` killed with SIGKILL at random times and resumed.

    python benchmarks/kill.py             # 30 kills, about ten minutes
    python benchmarks/kill.py --kills 2

A run is killed and resumed until it ends by itself; its weights and its history must then be those
of a run that nobody killed, bit for bit. Further runs follow until all kills are spent.
"""

import argparse
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

OPTIONS = {
    **{"scheme": "rk4", "n-steps": 2, "width": 16, "alpha": 50, "batch-size": 128, "seed": 3},
    **{"max-iter": 1500, "patience": 1000, "natural-iter": 100, "checkpoint-every": 25},
}
LONGEST = 900  # seconds for one process


@dataclasses.dataclass
class Report:
    """How many kills, how many of them in a process that had taken steps, runs and their faults."""

    kills: int = 0
    resumed: int = 0
    runs: int = 0
    faults: list[str] = dataclasses.field(default_factory=list)


def command(folder: Path, name: str, options: dict[str, object]) -> list[str]:
    """The command line of a run whose model and checkpoint bear `name`."""
    words = [sys.executable, "-m", "otflow", "fit", str(folder / "data.npy")]
    words += ["--out", str(folder / f"{name}.otflow"), "--resume"]
    words += ["--checkpoint", str(folder / f"{name}.checkpoint")]
    return words + [word for k, v in options.items() for word in (f"--{k}", str(v))]


def start(words: list[str]) -> subprocess.Popen:
    """The process, its output kept for error messages."""
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def content(path: Path) -> tuple[dict[str, bytes], str]:
    """Weights and history of a model file, without the seconds."""
    from otflow.model.modelfile import read_model_header
    from otflow.model.tensorfile import read_tensors

    training = read_model_header(path).document["training"]
    training["history"].pop("seconds")
    tensors = {name: array.tobytes() for name, array in read_tensors(path).items()}
    return tensors, json.dumps(training, sort_keys=True)


def kill_runs(folder: Path, kills: int, options: dict[str, object], seed: int = 0) -> Report:
    """Spend the kills on runs, each ended and compared."""
    rng, report = random.Random(seed), Report()
    rows = np.random.default_rng(0).standard_normal((1000, 2)) ** 3
    np.save(folder / "data.npy", rows)
    began = time.perf_counter()
    whole = start(command(folder, "whole", options))
    told, _ = whole.communicate(timeout=LONGEST)
    if whole.returncode:
        raise RuntimeError(told)
    length, expected = time.perf_counter() - began, content(folder / "whole.otflow")
    while report.kills < kills:
        name = f"run{report.runs}"
        while True:
            checkpoint = folder / f"{name}.checkpoint"
            report.resumed += checkpoint.exists()
            process = start(command(folder, name, options))
            patience = rng.uniform(0.1, 1.0) * length if report.kills < kills else LONGEST
            try:
                told, _ = process.communicate(timeout=patience)
                break
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.communicate()
                report.kills += 1
            finally:
                process.kill()
        report.runs += 1
        if process.returncode:
            report.faults.append(f"{name}: exit code {process.returncode}: {told[-500:]}")
        elif content(folder / f"{name}.otflow") != expected:
            report.faults.append(f"{name}: other weights or another history")
    return report


def main() -> int:
    """Exit code 1 where a run did not end, or ended elsewhere."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = kill_runs(Path(folder), arguments.kills, OPTIONS, arguments.seed)
    print(
        f"{report.kills} kills over {report.runs} runs, {report.resumed} starts from a checkpoint: "
        f"{report.runs - len(report.faults)} runs ended with the weights and the history of the "
        "uninterrupted run"
    )
    for fault in report.faults:
        print(f"  {fault}")
    return int(bool(report.faults))


if __name__ == "__main__":
    sys.exit(main())
