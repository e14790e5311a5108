"""Which devices a computation is spread over: one shard of the rows a device.

XLA runs the small kernels of a flow on one core. On a CPU the library therefore asks JAX for one
device a core, wherever a user first makes it use JAX (training, loading a model, building a target
or a Gaussian base, a study), and only if nothing has used JAX yet and the caller has not chosen a
number; importing otflow changes nothing.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from threadpoolctl import ThreadpoolController

from otflow.parallel.cores import cores_in_reach, cores_were_chosen
from otflow.support.compiling import hot_jit

Tree = TypeVar("Tree")

_ROWS = "rows"  # the axis of a mesh
_LEAST_ROWS = 64  # a shard with fewer is not worth its synchronisation


def use_all_cores() -> int:
    """Let JAX see one CPU device a core, if it still can be told; the number of devices it has.

    A no-op where JAX has already computed something, or where `jax_num_cpu_devices` or
    XLA_FLAGS=--xla_force_host_platform_device_count=... say how many devices there are.
    """
    if not cores_were_chosen() and getattr(jax.config, "jax_num_cpu_devices", None) == -1:
        with contextlib.suppress(RuntimeError):  # the backend runs already: its devices stay
            jax.config.update("jax_num_cpu_devices", cores_in_reach())
    return jax.local_device_count()


def row_mesh(n_rows: int, least: int = _LEAST_ROWS) -> Mesh:
    """The devices to spread n rows over: all of them, or fewer where shards would be tiny."""
    devices = jax.local_devices()
    count = max(1, min(len(devices), n_rows // least))
    return Mesh(np.array(devices[:count]), (_ROWS,))


def job_mesh(n_rows: int) -> Mesh:
    """`row_mesh`, but all devices of all processes where a job has several."""
    if jax.process_count() == 1:
        return row_mesh(n_rows)
    return Mesh(np.array(jax.devices()), (_ROWS,))


def everywhere(tree: Tree, mesh: Mesh) -> Tree:
    """The arrays of a tree, whole on every device; each process has the same."""
    where = NamedSharding(mesh, PartitionSpec())

    def leaf(value: Any) -> Any:
        if not eqx.is_array(value) or (isinstance(value, jax.Array) and value.sharding == where):
            return value
        if not mesh.is_multi_process:
            return jax.device_put(value, where)
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            data = leaf(jax.random.key_data(value))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(value))
        whole = np.asarray(value)
        return jax.make_array_from_callback(whole.shape, where, lambda index: whole[index])

    return jax.tree.map(leaf, tree)


def place(tree: Tree, mesh: Mesh, axis: int = 0, part: bool = False) -> Tree:
    """The arrays of a tree with that axis, a multiple of the mesh's size, cut into shards.

    Args:
        tree: of arrays on the host.
        mesh: over one process or all.
        axis: as said.
        part: each process has its own part of the rows, not all of them.
    """
    where = NamedSharding(mesh, PartitionSpec(*(None,) * axis, _ROWS))

    def leaf(array: Any) -> Any:
        if not mesh.is_multi_process:
            return jax.device_put(array, where)
        if part:
            return jax.make_array_from_process_local_data(where, array)
        return jax.make_array_from_callback(array.shape, where, lambda index: array[index])

    return jax.tree.map(leaf, tree)


def on_shards(
    function: Callable[..., Any],
    mesh: Mesh,
    shared: tuple,
    rows: tuple,
    axes: tuple[int, ...],
    *,
    summed: bool = True,
) -> Any:
    """function(*shared, *rows) on every device with its shard of the rows; within a `jit`.

    Args:
        function: of all of `shared` and a shard of each of `rows`.
        mesh: from `row_mesh`.
        shared: trees that every device gets whole; what is no array in them stays as it is.
        rows: trees of arrays, each cut along its entry of `axes`.
        axes: as said.
        summed: the results are the same on all devices, because `function` sums over them with
            `total`; otherwise they are shards too, along axis 0.
    """
    arrays, rest = eqx.partition(shared, eqx.is_array)

    def local(arrays: Any, *rows: Any) -> Any:
        return function(*eqx.combine(arrays, rest), *rows)

    cut = (PartitionSpec(*(None,) * axis, _ROWS) for axis in axes)
    spread = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(PartitionSpec(), *cut),
        out_specs=PartitionSpec() if summed else PartitionSpec(_ROWS),
        check_vma=False,
    )
    return spread(arrays, *rows)


def map_chunks(
    function: Callable[..., Any],
    shared: Any,
    rows: tuple,
    chunk: int,
    least: int = _LEAST_ROWS,
) -> Any:
    """function(shared, *rows), row by row, on all devices in chunks: memory stays bounded.

    Args:
        function: maps a tree and arrays of k rows to a tree of arrays of k rows; a function that
            lives as long as its compiled program should.
        shared: a tree, whole on every device.
        rows: trees of arrays of n rows.
        chunk: rows at once on a device.
        least: fewest rows worth a device.
    """
    n = jax.tree.leaves(rows)[0].shape[0]
    mesh = row_mesh(n, least)
    if padding := -n % mesh.size:
        index = np.pad(np.arange(n), (0, padding), mode="edge")
        rows = jax.tree.map(lambda array: array[index], rows)
    found = gathered(_mapped(function, mesh, chunk, everywhere(shared, mesh), place(rows, mesh)))
    return jax.tree.map(lambda array: array[:n], found) if padding else found


@hot_jit
def _mapped(function: Callable[..., Any], mesh: Mesh, chunk: int, shared: Any, rows: tuple) -> Any:
    def local(shared: Any, *rows: Any) -> Any:
        n = jax.tree.leaves(rows)[0].shape[0]
        n_chunks = max(1, -(-n // chunk))
        size = -(-n // n_chunks)
        index = np.minimum(np.arange(n_chunks * size), max(n - 1, 0)).reshape(n_chunks, size)
        cut = jax.tree.map(lambda array: array[index], rows)
        found = jax.lax.map(lambda part: function(shared, *part), cut)
        return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:])[:n], found)

    return on_shards(local, mesh, (shared,), rows, (0,) * len(rows), summed=False)


def total(tree: Tree) -> Tree:
    """Sums over the devices, within a function that `on_shards` runs."""
    return jax.lax.psum(tree, _ROWS)


def device_number() -> jax.Array:
    """0, 1, ... of the device, within a function that `on_shards` runs."""
    return jax.lax.axis_index(_ROWS)


def gathered(tree: Tree) -> Tree:
    """Arrays that every device holds, as ordinary ones of the default device."""

    def leaf(value: Any) -> Any:
        return jax.numpy.asarray(np.asarray(value)) if isinstance(value, jax.Array) else value

    return jax.tree.map(leaf, tree)


class _OneThread:
    """A limit of the whole process: the first thread that asks sets it, the last one lifts it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: Any = None

    def enter(self) -> None:
        with self._lock:
            if not self._inside:
                self._limit = _libraries().limit(limits=1, user_api="blas")
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limit.restore_original_limits()


_ONE_THREAD = _OneThread()


@contextlib.contextmanager
def one_lapack_thread() -> Iterator[None]:
    """LAPACK calls on one thread each, until the last of the threads that are within leaves.

    XLA calls it once a matrix; with threads of its own it makes those calls wait for one another,
    which was measured to double the time of a training step.
    """
    _ONE_THREAD.enter()
    try:
        yield
    finally:
        _ONE_THREAD.leave()


@functools.cache
def _libraries() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401  the library whose LAPACK XLA calls: loaded before the search

    return ThreadpoolController()
