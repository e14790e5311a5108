"""Fresh processes at the price of a fork, and what became of them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_LIMIT = 200  # seconds that a process has before it is killed

# A child leaves both loops and ends as an interpreter does, with its hooks and handlers.
# Objects of the imports are frozen: a collection in a child would copy the pages they lie on.
_PARENT = """
import gc, json, os, signal, sys
exec(sys.argv[1])
gc.freeze()
for line in sys.stdin:
    children = []
    for folder, code, arguments, environment in json.loads(line):
        child = os.fork()
        if not child:
            break
        children.append(child)
    else:
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)
        continue
    break
else:
    sys.exit()
signal.alarm(int(sys.argv[2]))
for number, name in ((1, "out"), (2, "err")):
    os.dup2(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
os.environ.update(environment)
sys.argv[1:] = arguments
exec(code, {"__name__": "__main__"})
"""


class Done(NamedTuple):
    """A process that has ended: its exit code, negative for a signal, and what it wrote."""

    code: int
    out: str
    err: str


class Forks:
    """An interpreter that has run the imports and not used JAX; each process is its fork.

    Args:
        imports: what it runs.
        folder: where the processes write.
        environment: beside this process's, whose number of devices it does not inherit.
    """

    def __init__(self, imports: str, folder: Path, **environment: str):
        if not hasattr(os, "fork"):
            pytest.skip("processes are forked")
        inherited = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
        flags = inherited.get("XLA_FLAGS", "").split()
        inherited["XLA_FLAGS"] = " ".join(f for f in flags if "_device_count" not in f)
        words, pipe = [sys.executable, "-c", _PARENT, imports, str(_LIMIT)], subprocess.PIPE
        self._folder = folder
        self._parent = subprocess.Popen(
            words, env=inherited | environment, cwd=_ROOT, stdin=pipe, stdout=pipe, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self._parent:  # waits
            self._parent.stdin.close()

    def run(self, code: str, *arguments: str, each: Sequence[dict[str, str]] = ({},)) -> list[Done]:
        """Processes that run the code at once, one an environment."""
        folders = [self._folder / str(i) for i in range(len(each))]
        for folder in folders:
            folder.mkdir(exist_ok=True)
        orders = [[str(f), code, arguments, own] for f, own in zip(folders, each, strict=True)]
        self._parent.stdin.write(json.dumps(orders) + "\n")
        self._parent.stdin.flush()
        codes = json.loads(self._parent.stdout.readline())
        files = [[(f / name).read_text() for name in ("out", "err")] for f in folders]
        return [Done(code, *texts) for code, texts in zip(codes, files, strict=True)]

    def output(self, code: str, *arguments: str, **environment: str) -> str:
        """What one process wrote; its errors fail the test."""
        (done,) = self.run(code, *arguments, each=[environment])
        assert done.code == 0, done.err
        return done.out
