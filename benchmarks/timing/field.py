"""Contestants side by side, each in a live process of its own, taking turns."""

import dataclasses
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peers.base import Setup
from peers.registry import Entry

BENCHMARKS = Path(__file__).resolve().parents[1]
_TIMEOUT = 600.0  # seconds a command may take


class WorkerError(RuntimeError):
    """A command failed, or its process died; the message says why."""


class Worker:
    """A process with one contestant."""

    def __init__(self, entry: Entry, environment: dict[str, str] | None = None):
        paths = [str(BENCHMARKS), *filter(None, sys.path)]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | (environment or {})
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "peers.worker", json.dumps(dataclasses.asdict(entry))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=env,
        )

    def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The reply to a command.

        Raises:
            WorkerError: the command failed, took too long, or its process died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._last_words()) from None
        if not select.select([self._process.stdout], [], [], _TIMEOUT)[0]:
            raise WorkerError(f"no answer to {do} in {_TIMEOUT:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._last_words())
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return f"exit code {code}: {lines[-1][:200] if lines else 'no message'}"


class Field:
    """Contestants that take turns; one that fails is out, with the reason in its row.

    Use as a context manager: it ends the processes. `rows` has one dictionary a contestant.
    """

    def __init__(self, entries: tuple[Entry, ...], part: str):
        self.rows: dict[str, dict[str, Any]] = {}
        self.workers: dict[str, Worker] = {}
        for entry in entries:
            missing = entry.missing()
            row = {"contestant": entry.name, "status": missing or "ok"}
            self.rows[entry.name] = row
            if missing is None:
                self.workers[entry.name] = Worker(entry)
        self.part = part

    def __enter__(self) -> "Field":
        for turn in self.turns():
            with turn:
                turn.call("start")
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.close()

    def turns(self) -> Iterator["Turn"]:
        """One turn for every contestant that is still in: `with turn: ...`."""
        for name in list(self.workers):
            turn = Turn(self.workers[name], self.rows[name])
            start = time.perf_counter()
            yield turn
            if turn.failed:
                self.workers.pop(name).close()
                self.rows[name]["status"] = f"failed: {turn.failed}"
            _progress(f"{self.part}: {name} {time.perf_counter() - start:.1f} s")

    def build(self, data: Path, setup: Setup) -> None:
        """Build every contestant on the same rows; `levels` goes into its row."""
        for turn in self.turns():
            with turn:
                turn.build(data, setup)


class Turn:
    """A contestant's turn: commands to its process, and its row. The first failure ends it."""

    def __init__(self, worker: Worker, row: dict[str, Any]):
        self.call, self.row = worker.call, row
        self.failed: str | None = None

    def build(self, data: Path, setup: Setup) -> None:
        """Build on the rows of the file."""
        reply = self.call("build", data=str(data), setup=dataclasses.asdict(setup))
        self.row["levels"] = reply["levels"]

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if isinstance(error, WorkerError):
            self.failed = str(error)
        return self.failed is not None


def _progress(text: str) -> None:
    """On stderr, where the table is not."""
    if os.environ.get("OTFLOW_BENCH_VERBOSE"):
        print(text, file=sys.stderr, flush=True)
