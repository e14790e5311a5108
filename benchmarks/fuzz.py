"""Damaged files: 20,000 mutated model files and 5,000 mutated tables, each read and used.

    python benchmarks/fuzz.py            # all of them, about ten minutes
    python benchmarks/fuzz.py --quick    # under a minute

Every mutant must give a clean error (ValueError or OSError, one line that names the file) or a
model that scores rows or a table of numbers. Workers run under a memory limit; one that dies is a
crash, one that is silent for too long, twice at the same mutant, a hang; it is replaced and the run
goes on.
"""

import argparse
import dataclasses
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

SPARE = 2**30  # bytes of address space above those in use before the first mutant
PATIENCE = 30.0  # seconds for one mutant, compilation included
TEXTS = (
    ",a,b\n" + "".join(f"{i},{i / 2},{-i}\n" for i in range(20)),  # an index of pandas
    "a;b\n" + "".join(f"{i},5;{-i},25\n" for i in range(20)),  # decimal commas
    "a, b\n" + "".join(f"{i}, {-i}\n" for i in range(20)) + "\n\n",
    "day,b\n" + "".join(f"2020-01-{i + 1:02d},{i}\n" for i in range(20)),
    "kind,b\n" + "".join(f"{'xyz'[i % 3]},{i}\n" for i in range(20)),
    '"a","b"\n' + "".join(f'"{i}","NA"\n' for i in range(20)),
)
TABLES = (".csv", ".npz", ".npy", ".parquet")


# --- whole files ---------------------------------------------------------------------------------


def model_files() -> list[bytes]:
    """Small models: both schemes, a mixture target, float64."""
    import otflow

    x = np.random.default_rng(0).standard_normal((40, 2)) * [1.0, 3.0]
    mixture = otflow.GaussianMixture([0.5, 0.5], [[1.0, 0.0], [-1.0, 0.0]], [np.eye(2)] * 2)
    common = {"width": 4, "max_iter": 1, "n_steps": 2, "random_state": 0, "verbose": False}
    options = (
        {},
        {"scheme": "rk4", "target": mixture, "depth": 2},
        {"dtype": "float64", "depth": 0, "standardize": False},
    )
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for chosen in options:
            path = Path(folder) / "m"
            otflow.OTFlow(**common, **chosen).fit(x).save(path)
            found.append(path.read_bytes())
    return found


def table_files() -> list[tuple[str, bytes]]:
    """A small table in every format, with its suffix, and texts as people have them."""
    from otflow.data.tables import Table, write_table

    x = np.random.default_rng(1).standard_normal((30, 3))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for suffix in TABLES:
            path = Path(folder) / f"t{suffix}"
            write_table(path, Table(x, ("a", "b", "c")))
            found.append((suffix, path.read_bytes()))
    return found + [(".csv", text.encode()) for text in TEXTS]


# --- mutations -----------------------------------------------------------------------------------


def flip(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """A few bits."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """A run of random bytes, or of one byte."""
    start, length = rng.randrange(len(content)), rng.randint(1, 64)
    fill = rng.randbytes(length) if rng.random() < 0.5 else rng.randbytes(1) * length
    return content[:start] + fill + content[start + length :]


def truncate(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """The beginning, or the beginning and something more."""
    return content[: rng.randrange(len(content))] + rng.randbytes(rng.choice([0, 0, 5]))


def splice(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """The beginning of one file and the end of another, or a part twice."""
    other = rng.choice(others)
    return content[: rng.randrange(len(content))] + other[rng.randrange(len(other)) :]


def foreign(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Nothing, noise, text, archives, pickles, and lengths that lie."""
    lie = rng.choice([2**63, 2**40, 10**8, len(content), 500]).to_bytes(8, "little")
    text = b"alpha,beta\n1,2\n" * rng.randint(0, 50)
    starts = (b"", b"PK\x03\x04", b"\x80\x04\x95", b"\x93NUMPY\x01\x00", b"PAR1", b"\x1f\x8b", lie)
    return rng.choice(starts) + rng.choice((b"", text, rng.randbytes(rng.randint(0, 300))))


ANY = (flip, overwrite, truncate, splice, foreign)
VALUES = (
    *(None, True, 0, -1, 1, 2, 3, 7, 1e30, -0.5, 10**12, 10**30, "", "float64", "rk4", "x" * 1000),
    *([], {}, [1], ["a", "b"], {"value": 3}, {"tensor": "standardizer.mean"}, float("nan")),
)


def edit_json(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """One value of the metadata, of a tensor's description, or of the header, replaced."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    place = rng.random()
    if place < 0.7:
        document = json.loads(header["__metadata__"]["otflow"])
        _replace(rng, document)
        header["__metadata__"]["otflow"] = json.dumps(document)
    elif place < 0.9:
        _replace(rng, header[rng.choice([name for name in header if name != "__metadata__"])])
    else:
        _replace(rng, header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _replace(rng: random.Random, document: dict) -> None:
    """A random node of the tree: changed, removed, renamed or exchanged with its neighbour."""
    node = document
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = rng.choice(list(keys))
        below = node[key]
        if not isinstance(below, (dict, list)) or not below or rng.random() < 0.15:
            break
        node = below
    action = rng.random()
    if action < 0.6:
        node[key] = rng.choice(VALUES)
    elif action < 0.75:
        del node[key]
    elif action < 0.85 and isinstance(node, dict):
        node["new"] = node.pop(key)
    else:
        other = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        node[key], node[other] = node[other], node[key]


def edit_tensors(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """One tensor with another dtype, another shape, or NaN, infinite, huge or tiny numbers."""
    from safetensors.numpy import load, save

    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    tensors = load(content)
    name = rng.choice(sorted(tensors))
    array = tensors[name]
    action = rng.randrange(4)
    if action == 0:
        kind = rng.choice(["int32", "float64", "float16", "float32", "bool", "uint8"])
        array = array.astype(kind)
    elif action == 1:
        flat = array.ravel()
        array = rng.choice((array[..., None], flat, flat[:0], flat[:1], array.T, array[None]))
    elif array.size:
        bad = (np.nan, np.inf, -np.inf, 0.0, 1e38, -1e38, 1e-40, 1e3)
        array = array.copy()
        array.ravel()[rng.randrange(array.size)] = rng.choice(bad)
    tensors[name] = np.ascontiguousarray(array)
    return save(tensors, metadata)


MODEL = (*ANY, edit_json, edit_json, edit_json, edit_tensors, edit_tensors)


def edit_text(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """One cell or line of a CSV file replaced; other files are overwritten."""
    cells = (
        b"",
        b"nan",
        b"inf",
        b"1e999",
        b"text",
        b'"',
        b"1;2",
        b"\x00",
        b"\xff\xfe",
        b"1" * 5000,
    )
    if not content.startswith(b"a,b,c"):
        return overwrite(rng, content, others)
    lines = content.split(b"\n")
    row = rng.randrange(len(lines))
    fields = lines[row].split(b",")
    fields[rng.randrange(len(fields))] = rng.choice(cells)
    lines[row] = b",".join(fields + [b"7"] * rng.choice([0, 0, 0, 1]))
    return rng.choice([b"\n", b"\n", b"\r\n", b"\r"]).join(lines)


TABLE = (*ANY, edit_text, edit_text)


# --- running -------------------------------------------------------------------------------------


class Subject:
    """The files to mutate, and what is done with a mutant."""

    def __init__(self, folder: Path):
        self.models, self.tables = model_files(), table_files()
        self.folder = folder
        self.rows = np.random.default_rng(2).standard_normal((8, 2))

    def model(self, number: int) -> str:
        """Load a mutated model and score rows with it; the outcome in a word."""
        import otflow

        rng = random.Random(number)
        content = rng.choice(MODEL)(rng, rng.choice(self.models), self.models)
        path = self.folder / "mutant"
        path.write_bytes(content)

        def use() -> None:
            model = otflow.load(path)
            rows = self.rows if model.n_features_in_ == 2 else np.ones((8, model.n_features_in_))
            model.score_samples(rows)
            model.sample(4, random_state=0)

        return outcome(use, path)

    def table(self, number: int) -> str:
        """Read a mutated table; the outcome in a word."""
        from otflow.data.tables import read_table

        rng = random.Random(number)
        suffix, content = rng.choice(self.tables)
        content = rng.choice(TABLE)(rng, content, [c for _, c in self.tables])
        path = self.folder / f"mutant{rng.choice(TABLES) if rng.random() < 0.05 else suffix}"
        path.write_bytes(content)

        def use() -> None:
            table = read_table(path)
            if table.values.ndim != 2 or table.values.dtype != np.float64:
                raise RuntimeError("no table of numbers")

        return outcome(use, path)


def outcome(use, path: Path) -> str:
    """ "success", "clean error", or the class and text of an error that is not clean."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            use()
        except (ValueError, OSError) as error:
            text = str(error)
            if path.name in text and len(text) < 1000 and "\n" not in text:
                return "clean error"
            return f"{type(error).__name__} without the file: {text[:200]}"
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:200]}"
    return "success"


@dataclasses.dataclass(frozen=True)
class Done:
    """What a worker says after a mutant."""

    number: int
    outcome: str
    peak: int  # bytes resident, most so far


def work(pipe: Connection, kind: str, numbers: list[int]) -> None:
    """In a process of its own: warm up, limit the memory, then mutant after mutant."""
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(Path(folder))
        check = getattr(subject, kind)
        check(0)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + SPARE, used + SPARE))
        pipe.send(Done(-1, "started", _peak()))
        for number in numbers:
            pipe.send(Done(number, check(number), _peak()))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclasses.dataclass
class Report:
    """Counts of outcomes, the mutants that failed, memory before the first mutant and at most."""

    counts: Counter = dataclasses.field(default_factory=Counter)
    failures: dict[int, str] = dataclasses.field(default_factory=dict)
    start: int = 0
    peak: int = 0

    def add(self, number: int, found: str) -> None:
        """Count an outcome."""
        known = found in ("success", "clean error", "crash", "hang")
        self.counts[found if known else "other error"] += 1
        if found not in ("success", "clean error"):
            self.failures[number] = found


def fuzz(kind: str, n: int, first: int = 0) -> Report:
    """Mutants first .. first + n - 1 of a kind, "model" or "table"."""
    context = multiprocessing.get_context("spawn")
    report, left, silent = Report(), list(range(first, first + n)), -1
    while left:
        here, there = context.Pipe(duplex=False)
        worker = context.Process(target=work, args=(there, kind, left), daemon=True)
        worker.start()
        there.close()
        try:
            report.start = here.recv().peak
            while left:
                if not here.poll(PATIENCE):
                    if silent == left[0]:  # once may be the machine's fault
                        report.add(left.pop(0), "hang")
                    else:
                        silent = left[0]
                    break
                done = here.recv()
                left.remove(done.number)
                report.add(done.number, done.outcome)
                report.peak = max(report.peak, done.peak)
        except EOFError:
            report.add(left.pop(0), "crash")
        finally:
            worker.kill()
            worker.join()
    return report


def main() -> int:
    """Both kinds; exit code 1 where a mutant was not handled cleanly."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="300 models and 100 tables")
    parser.add_argument("--seed", type=int, default=0, help="number of the first mutant")
    options = parser.parse_args()
    bad = 0
    for kind, n in (("model", 300), ("table", 100)) if options.quick else FULL:
        start = time.perf_counter()
        report = fuzz(kind, n, options.seed)
        names = ("clean error", "success", "crash", "hang", "other error")
        counts = ", ".join(f"{name} {report.counts[name]}" for name in names)
        print(
            f"{n} mutated {kind} files: {counts}; resident memory {report.start / 2**20:.0f} MiB "
            f"before, {report.peak / 2**20:.0f} MiB at most; {time.perf_counter() - start:.0f} s"
        )
        for number, text in list(report.failures.items())[:20]:
            print(f"  {kind} {number}: {text}")
        bad += len(report.failures)
    return int(bad > 0)


FULL = (("model", 20_000), ("table", 5_000))

if __name__ == "__main__":
    sys.exit(main())
