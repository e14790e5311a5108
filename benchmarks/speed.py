"""How fast otflow trains, samples and scores, next to its peers.

    python benchmarks/speed.py --quick                       # every part, small: under 4 minutes
    python benchmarks/speed.py --parts step --json speed.json
    python benchmarks/speed.py --json speed.json --parts     # the tables of what is in the file

Every contestant lives in a process of its own and all take turns, so that a slow spell of the
machine meets them all; figures are medians. Rows go into the --json file as each piece ends, and
a piece measured again replaces its old rows, so the parts can be run one by one.

Parts, and minutes on two idle cores in full form (settings in benchmarks/timing):
  step       15  step time, peak memory and compile time at three sizes with published figures
  nll        6 a set    time to a given held-out nll (--sets)
  sample     4   samples and scores per second, at equal accuracy
  limit      2   share of the machine's matrix-product rate
  growth     4   step time against rows, dimension and width
  precision  2   error of the nll against seconds (--plot FILE)
  cold       3   fresh process to first fit step, with and without the compilation cache
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from otflow.support.files import atomic_path
from timing import cold, growth, limit, nll, precision, sample, step
from timing.data import SETS
from timing.table import Row, summary, table

MODULES = {
    "step": step,
    "nll": nll,
    "sample": sample,
    "limit": limit,
    "growth": growth,
    "precision": precision,
    "cold": cold,
}
PARTS = tuple(MODULES)
PACKAGES = ("jax", "torch", "zuko", "torchdiffeq", "flowjax", "torchcfm")


def pieces(given: argparse.Namespace, folder: Path) -> dict[str, Callable[[], list[Row]]]:
    """What is to be measured: the piece's name, "part" or "part what", and how."""
    quick = given.quick
    found: dict[str, Callable[[], list[Row]]] = {}
    for part in given.parts:
        if part == "step":
            for shape in (step.QUICK,) if quick else step.SHAPES:
                found[f"step {shape}"] = partial(step.run, shape, folder, quick)
        elif part == "nll":
            seconds = given.seconds or (2.0 if quick else 45.0)
            for name in given.sets or (("8gaussians",) if quick else SETS):
                found[f"nll {name}"] = partial(nll.run, name, folder, quick, seconds)
        elif part == "sample":
            found[part] = partial(sample.run, folder, quick, given.seconds or (1 if quick else 10))
        else:
            found[part] = partial(MODULES[part].run, folder, quick)
    return found


def machine() -> str:
    """Processor, cores, load and versions."""
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} not installed")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    cores = f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} at the start"
    return f"{cores}, python {platform.python_version()}, {', '.join(versions)}"


def show(name: str, record: dict[str, Any]) -> None:
    """A heading, the machine, and the piece's table."""
    print(f"\n## {name}{' (quick)' if record['quick'] else ''}\n")
    print(f"{record['machine']}; {record['minutes']:.1f} minutes\n")
    print(table(record["rows"], MODULES[name.split()[0]].COLUMNS), flush=True)


def save(path: str, records: dict[str, Any]) -> None:
    """Write all records to the file at once."""
    with atomic_path(Path(path)) as draft:
        draft.write_text(json.dumps(records, indent=1))


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sets", nargs="+", choices=SETS, help="data sets of the part nll")
    parser.add_argument("--seconds", type=float, help="training budget in nll (45) and sample (10)")
    parser.add_argument("--reference", help="a checkout of the published OT-Flow code, timed too")
    parser.add_argument("--json", help="file that keeps the rows of every piece")
    parser.add_argument("--plot", help="file for the work-precision picture")
    given = parser.parse_args()
    if given.reference:
        os.environ["OTFLOW_BENCH_REFERENCE"] = str(Path(given.reference).resolve())
    records: dict[str, Any] = {}
    if given.json and Path(given.json).exists():
        records = json.loads(Path(given.json).read_text())
        for name, record in records.items():
            show(name, record)
    with tempfile.TemporaryDirectory() as folder:
        for name, measure in pieces(given, Path(folder)).items():
            start, here = time.perf_counter(), machine()
            rows = measure()
            minutes = (time.perf_counter() - start) / 60
            record = {"machine": here, "quick": given.quick, "minutes": minutes, "rows": rows}
            records[name] = record
            show(name, record)
            if given.json:
                save(given.json, records)
    if given.plot and "precision" in records:
        precision.plot(records["precision"]["rows"], given.plot)
    print("\n## Summary\n")
    print(summary({name: record["rows"] for name, record in records.items()}))


if __name__ == "__main__":
    main()
