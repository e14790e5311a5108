"""The state of a training run on disk, to go on from bit for bit after it was stopped.

A checkpoint holds a section for each phase (first-order steps, then natural gradients): a tree of
arrays and a JSON document. Batches are not stored: they follow from the seed and are drawn again.
"""

import contextlib
import dataclasses
import hashlib
import json
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from otflow.model.tensorfile import read_header, read_tensors, reading, to_json, write_tensors
from otflow.parallel.job import is_first
from otflow.support.checks import check_count
from otflow.support.files import check_writable

Tree = TypeVar("Tree")
Row = dict[str, Any]

_ENTRY = "otflow-checkpoint"
_VERSION = 3


@dataclasses.dataclass(frozen=True)
class Watch:
    """What happens beside training, at validations.

    Attributes:
        checkpoint: file for the run's state; None for none.
        checkpoint_every: steps between writes, rounded up to validations.
        resume: go on from the file where there is one.
        on_validation: called with every new row of the history, and its `phase`.

    Raises:
        ValueError, TypeError: a field is out of its range.
        OSError: the file cannot be written, or holds a run that is not to be resumed.
    """

    checkpoint: str | Path | None = None
    checkpoint_every: int = 100
    resume: bool = False
    on_validation: Callable[[Row], None] | None = None

    def __post_init__(self) -> None:
        check_count("checkpoint_every", self.checkpoint_every)
        if self.on_validation is not None and not callable(self.on_validation):
            kind = type(self.on_validation).__name__
            raise TypeError(f"on_validation: expected a function of one row; got {kind}.")
        if self.checkpoint is None:
            if self.resume:
                raise ValueError("resume: expected a checkpoint to resume from; got none.")
            return
        path = check_writable(self.checkpoint)
        if path.exists() and not self.resume:
            raise FileExistsError(f"{path} holds a run: resume it, or remove the file.")

    def open(self, identity: dict[str, Any]) -> "Checkpoint":
        """The checkpoint of a run that is what `identity` says: its settings and its data.

        Only where there is to be one.

        Raises:
            ValueError: the file holds another run, naming what differs, or is damaged.
        """
        assert self.checkpoint is not None
        path = Path(self.checkpoint)
        identity = json.loads(to_json(identity))  # as it comes back from a file
        sections = _read(path, identity) if self.resume and path.exists() else {}
        return Checkpoint(path, self.checkpoint_every, identity, sections)

    @contextlib.contextmanager
    def following(self, identity: Callable[[], dict[str, Any]]) -> "Iterator[Checkpoint | None]":
        """`open`, or None where there is to be no checkpoint; with one SIGTERM interrupts."""
        if self.checkpoint is None:
            yield None
            return
        checkpoint = self.open(identity())
        with sigterm_interrupts():
            yield checkpoint

    def report(self, phase: str, row: Row) -> None:
        """Hand a row of the history to the callback."""
        if self.on_validation is not None:
            self.on_validation({"phase": phase} | row)


class _Section(NamedTuple):
    document: dict[str, Any]
    arrays: list[Any]


class Checkpoint:
    """A file that follows a run; see `Watch.open`."""

    def __init__(
        self, path: Path, every: int, identity: dict[str, Any], sections: dict[str, _Section]
    ):
        self._path, self._every, self._identity = path, every, identity
        self._sections = sections
        self._written, self._pending = 0, False

    def restore(self, phase: str, like: Tree) -> tuple[Tree, dict[str, Any]] | None:
        """The tree and the document that `keep` was given last, None before the first time.

        Args:
            phase: name of the section.
            like: a tree of the same structure, shapes and dtypes.
        """
        if phase not in self._sections:
            return None
        document, found = self._sections[phase]
        arrays, rest = eqx.partition(like, eqx.is_array)
        leaves, structure = jax.tree.flatten(arrays)
        if [(a.shape, a.dtype) for a in leaves] != [(a.shape, a.dtype) for a in found]:
            raise ValueError(f"{self._path}: not a readable checkpoint (arrays of another shape).")
        self._written = document["iteration"]
        tree = jax.tree.unflatten(structure, [jnp.asarray(a) for a in found])
        return eqx.combine(tree, rest), document

    def keep(self, phase: str, tree: Any, document: dict[str, Any], ended: bool) -> None:
        """Remember the state after a validation; write it if it is time or the phase has ended.

        `document["iteration"]` counts the steps of the phase. A file that cannot be written costs a
        warning: training goes on, and the file that was there stays.
        """
        arrays = jax.tree.leaves(eqx.filter(tree, eqx.is_array))
        self._sections = self._sections | {phase: _Section(document, arrays)}
        self._pending = True
        iteration = document["iteration"]
        if iteration < self._written:  # a new phase counts from 0
            self._written = 0
        if ended or iteration - self._written >= self._every:
            self.flush()

    def flush(self) -> None:
        """Write what was kept last, unless it is written; process 0 does it for all."""
        if not self._pending or not is_first():
            return
        documents, tensors = {}, {}
        for phase, section in self._sections.items():
            documents[phase] = section.document
            for i, array in enumerate(section.arrays):
                tensors[f"{phase}/{i}"] = np.array(array, order="C")
        content = {"version": _VERSION, "identity": self._identity, "sections": documents}
        try:
            write_tensors(self._path, _ENTRY, content, tensors, allow_nan=True)
        except OSError as error:
            warnings.warn(
                f"the checkpoint could not be written and training goes on: {error}",
                UserWarning,
                stacklevel=2,
            )
            return
        self._written, self._pending = documents[phase]["iteration"], False


def digest(*trees: Any) -> str:
    """SHA-256 over the arrays of trees, their shapes and dtypes, and the classes they sit in."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(eqx.filter(trees, eqx.is_array)):
        array = np.ascontiguousarray(leaf)
        found.update(f"{array.shape}{array.dtype}".encode())
        found.update(array.data if array.size else b"")
    found.update(str(jax.tree.structure(trees)).encode())
    return found.hexdigest()


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does, where nobody else handles it."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _read(path: Path, identity: dict[str, Any]) -> dict[str, _Section]:
    with reading(path, "checkpoint"):
        document = read_header(path, _ENTRY).document
        if document["version"] != _VERSION:
            raise ValueError(f"version {document['version']!r} is not {_VERSION}")
        tensors = read_tensors(path)
        sections = {}
        for phase, section in document["sections"].items():
            n = sum(name.startswith(f"{phase}/") for name in tensors)
            sections[phase] = _Section(dict(section), [tensors[f"{phase}/{i}"] for i in range(n)])
        theirs = dict(document["identity"])
    names = [name for name in theirs | identity if theirs.get(name) != identity.get(name)]
    if names:
        told = ", ".join(_difference(name, theirs.get(name), identity.get(name)) for name in names)
        raise ValueError(f"{path}: the checkpoint is of another run; what differs: {told}.")
    return sections


def _difference(name: str, theirs: Any, ours: Any) -> str:
    long = any(isinstance(value, str) and len(value) == 64 for value in (theirs, ours))
    return name if long else f"{name} ({theirs!r} there, {ours!r} now)"
