"""Time and size of a report, by the number of rows.

    python benchmarks/report.py            # 10^4, 10^5 and 10^6 rows in 2 and 8 dimensions
    python benchmarks/report.py --quick    # 10^4 rows

The flows are trained for a moment: what they are plays no part.
"""

import argparse
import os
import platform
import resource
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from otflow import OTFlow
from otflow.report import model_document, save_figures, write_page


def measure(n: int, d: int) -> tuple[float, float, float, int]:
    """Seconds for content, page and Matplotlib's figures, and the page's bytes."""
    rows = np.random.default_rng(0).standard_normal((n, d)) ** 3
    model = OTFlow(width=32, max_iter=25, random_state=0, verbose=False).fit(rows[:5000])
    with tempfile.TemporaryDirectory() as folder:
        times = [time.perf_counter()]
        document = model_document(model, rows)
        times.append(time.perf_counter())
        write_page(document, Path(folder) / "report.html")
        times.append(time.perf_counter())
        save_figures(document, folder)
        times.append(time.perf_counter())
        content, page, figures = np.diff(times).tolist()
        return content, page, figures, (Path(folder) / "report.html").stat().st_size


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10^4 rows only")
    given = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, jax {jax.__version__}, "
        f"python {platform.python_version()}; with compilation"
    )
    print("| d | rows | content s | page s | PDF figures s | page MB | peak GB |")
    print("|---|---|---|---|---|---|---|")
    for d in (2, 8):
        for n in (10**4,) if given.quick else (10**4, 10**5, 10**6):
            content, page, figures, size = measure(n, d)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(
                f"| {d} | {n:,} | {content:.1f} | {page:.2f} | {figures:.1f} | {size / 1e6:.2f} "
                f"| {peak:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
