"""Training through a Parquet data set larger than memory allows: peak memory and rows a second.

    python benchmarks/stream.py --gigabytes 10     # about 10 minutes on two idle cores
    python benchmarks/stream.py --quick            # 0.05 GB

Shards are written to a temporary folder (--folder says where) by a process of its own, read once
for the statistics, and trained through once.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

DIM = 16
BATCH = 2**16
SHARD_ROWS = 2**21  # 256 MiB of float64
ROW_BYTES = 8 * DIM


def write(folder: Path, n: int) -> None:
    """Shards of correlated, skewed columns."""
    import polars

    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((DIM, DIM)) / 4 + np.eye(DIM)
    for k, start in enumerate(range(0, n, SHARD_ROWS)):
        rows = rng.standard_normal((min(SHARD_ROWS, n - start), DIM)) @ mixing
        rows[:, 0] = np.exp(rows[:, 0] / 2)
        frame = polars.DataFrame(rows, schema=[f"x{j}" for j in range(DIM)])
        path = folder / f"{k:04}.parquet"
        frame.write_parquet(path, compression="uncompressed", row_group_size=2**16)


def peak_mb() -> float:
    """Largest resident set of this process so far, MB; mapped pages of files count."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Write, train, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write:
        write(Path(given.write[0]), int(given.write[1]))
        return 0
    size = 0.05 if given.quick else given.gigabytes
    n = int(size * 1e9 / ROW_BYTES)
    free = shutil.disk_usage(given.folder or tempfile.gettempdir()).free
    if free < 1.2e9 * size:
        print(f"needs {1.2 * size:.1f} GB of disk; {free / 1e9:.1f} GB are free")
        return 1
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="otflow-stream-") as name:
        words = [sys.executable, __file__, "--write", name, str(n)]
        subprocess.run(words, check=True)
        on_disk = sum(path.stat().st_size for path in Path(name).iterdir())
        print(f"{n:,} rows of {DIM} columns, {on_disk / 1e9:.2f} GB in Parquet", flush=True)
        return train(Path(name), n)


def train(folder: Path, n: int) -> int:
    """One pass of statistics, one of training."""
    from otflow import OTFlow, ShardedTable

    heard: list[tuple[float, dict]] = []
    steps = max(2, -(-n // BATCH))
    flow = OTFlow(
        width=8,
        depth=0,
        n_steps=1,
        batch_size=BATCH,
        max_iter=steps,
        patience=steps,
        random_state=0,
        verbose=False,
    )
    start = time.perf_counter()
    before = peak_mb()
    table = ShardedTable(folder, piece_rows=2**16)
    flow.fit(table, on_validation=lambda row: heard.append((time.perf_counter(), row)))
    first, last = heard[0][0], heard[-1][0]
    print(f"statistics pass {first - start:.1f} s, {n / (first - start):,.0f} rows/s")
    rows = steps * BATCH
    print(
        f"training pass   {last - first:.1f} s, {rows / (last - first):,.0f} rows/s, {steps} steps"
    )
    print(f"validation nll  {heard[0][1]['val_nll']:.3f} -> {heard[-1][1]['val_nll']:.3f} nats")
    print(f"peak memory     {peak_mb():,.0f} MB, of which {before:,.0f} MB before the first row")
    return 0


if __name__ == "__main__":
    sys.exit(main())
