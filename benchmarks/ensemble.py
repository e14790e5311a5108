"""Many small flows as one program against one by one, on the same machine in one run.

    python benchmarks/ensemble.py            # four sizes, medians of three
    python benchmarks/ensemble.py --quick    # one size, half a minute

Problem: rotated product of two copies of 0.4 N(-2, 0.5^2) + 0.6 N(1.5, 0.7^2), alpha = 10.
"""

import argparse
import os
import platform
import time

import jax
import jaxlib
import numpy as np

from otflow.studies.members import Network, train_members
from otflow.studies.problems import make_problem
from otflow.training.ensemble import EnsembleConfig

ALPHA = 10.0


def seconds(members: int, width: int, rows: int, steps: int) -> float:
    """Wall time of one call of the trainer for that many members."""
    problem, network = make_problem("product", 2), Network(width)
    config = EnsembleConfig(
        first_order=steps, first_order_rows=rows, natural=steps, natural_rows=rows
    )
    flows = [network.start(problem, ALPHA, seed) for seed in range(members)]
    start = time.perf_counter()
    train_members(flows, problem, [ALPHA] * members, range(members), config)
    return time.perf_counter() - start


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one size, fewer repeats")
    given = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    k, repeats = 16, 1 if given.quick else 3
    sizes = [(8, 250)] if given.quick else [(8, 250), (8, 1000), (16, 1000), (32, 2000)]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, jax {jax.__version__}, "
        f"jaxlib {jaxlib.__version__}, python {platform.python_version()}, float64, {k} members, "
        f"medians of {repeats}"
    )
    print(
        "width  rows | step of all, ms: one by one  together  speed-up | with compilation: speed-up"
    )
    for width, rows in sizes:
        short, long = 100, 1100
        seconds(1, width, rows, short)  # what JAX compiles once in a process
        times = np.array(
            [
                [seconds(m, width, rows, steps) for m in (1, k) for steps in (short, long)]
                for _ in range(repeats)
            ]
        )
        one_short, one_long, all_short, all_long = np.median(times, axis=0)
        # the difference of two lengths leaves compilation out; both phases take `steps` steps
        alone = k * (one_long - one_short) / (long - short) * 1000
        together = (all_long - all_short) / (long - short) * 1000
        print(
            f"{width:>5} {rows:>5} | {alone:>10.1f} {together:>9.1f} {alone / together:>8.1f}x | "
            f"{k * one_long / all_long:>8.1f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()
