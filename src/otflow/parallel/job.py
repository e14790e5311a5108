"""The other processes of a job: who writes, what all must share, who is lost.

One process, or none that `otflow.parallel.join_processes` has joined, is a job of its own.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.experimental import multihost_utils

Tree = TypeVar("Tree")

_LONGEST = 10.0  # seconds after an error in which a lost process becomes known


class ProcessLostError(ConnectionError):
    """Another process of the job has died or stopped answering; this one cannot go on."""


class _Job:
    """Set by `join_processes`: names a lost process, None where there is none; and `fail`."""

    find_lost: Callable[[float], int | None] = staticmethod(lambda seconds: None)
    fail: Callable[[], None] = staticmethod(lambda: None)


def is_first() -> bool:
    """Whether this process writes files and shows progress."""
    return jax.process_index() == 0


def from_first(tree: Tree) -> Tree:
    """The arrays of process 0, in every process; the other leaves as they are."""
    if jax.process_count() == 1:
        return tree
    arrays, rest = eqx.partition(tree, eqx.is_inexact_array)
    found = multihost_utils.broadcast_one_to_all(jax.tree.map(np.asarray, arrays))
    return eqx.combine(jax.tree.map(jax.numpy.asarray, found), rest)


def summed(array: np.ndarray) -> np.ndarray:
    """The sum of an array over the processes, in the order of their numbers."""
    if jax.process_count() == 1:
        return array
    with jax.enable_x64(True):
        return np.asarray(multihost_utils.process_allgather(array)).sum(axis=0)


def check_same(what: str, told: str) -> None:
    """Raise ValueError in every process unless all were told the same.

    Args:
        what: named in the error: the argument, and what is expected of it.
        told: any text.
    """
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(told.encode()).digest(), np.uint32)
    found = np.asarray(multihost_utils.process_allgather(digest))
    other = np.flatnonzero((found != found[0]).any(axis=1)).tolist()
    if other:
        raise ValueError(f"{what}; got others in process(es) {', '.join(map(str, other))}.")


@contextlib.contextmanager
def losses_told(advice: str) -> Iterator[None]:
    """Errors of a collective operation become ProcessLostError where a process was lost.

    Args:
        advice: how to go on, a sentence.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:  # JAX knows no class of its own for it
        if jax.process_count() == 1 or not any(w in str(error) for w in ("Gloo", "NCCL", "RPC")):
            raise
        lost = _Job.find_lost(_LONGEST)
        name = "a process" if lost is None else f"process {lost}"
        raise ProcessLostError(loss(name, advice)) from error


def loss(name: str, advice: str) -> str:
    """The message for a lost process."""
    return f"{name} of {jax.process_count()} was lost and the job ends. {advice}"


@contextlib.contextmanager
def errors_end_the_job() -> Iterator[None]:
    """An error in the block makes this process end without waiting for the others, at its exit."""
    try:
        yield
    except BaseException:
        _Job.fail()
        raise


def on_loss(find_lost: Callable[[float], Any], fail: Callable[[], None]) -> None:
    """Say how a lost process is found, and what to call where this one ends on an error.

    Args:
        find_lost: waits so many seconds for one, and returns its number or None.
        fail: called before the error goes on.
    """
    _Job.find_lost, _Job.fail = staticmethod(find_lost), staticmethod(fail)
