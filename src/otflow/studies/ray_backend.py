"""Studies on Ray: units are tasks, their results come back to the one store, the driver's."""

import contextlib
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from otflow.flow.flow import Flow
from otflow.model.modelfile import load_model
from otflow.parallel.cores import cores_in_reach, cores_were_chosen
from otflow.studies.cell import Cell
from otflow.studies.runner import Outcome, Progress, Unit, compute_unit, ready, save_unit
from otflow.studies.store import Store
from otflow.support.checks import check_count
from otflow.support.extras import require
from otflow.support.precision import precision

_STORE_BYTES = 80 * 2**20  # of shared memory: results are small
_INHERITED = ("JAX_", "XLA_", "OMP_", "OPENBLAS_", "MKL_", "OTFLOW_")
_ANSWER = 10.0  # seconds within which a cluster answers
_POLL = 1.0  # seconds between looks at the time left


class RayBackend:
    """Runs a study's units as Ray tasks; give it to `run_study(backend=...)`.

    A worker sees as many devices as the driver and its thread settings, so on machines of one
    kind the tables are those of the local backend, bit for bit. A task whose worker dies is
    started again.

    Args:
        address: of a cluster ("host:6379", "ray://...", "auto"); None starts Ray on this machine,
            listening on loopback alone (where Ray was not imported before).
        cpus: of Ray's CPUs a task takes; None is the number of devices.
        retries: of a task whose worker was lost.

    Raises:
        ImportError: Ray is not installed: `pip install 'otflow[ray]'`.
        ConnectionError: nothing answers at the address.
        ValueError, TypeError: a number out of range.
    """

    def __init__(self, address: str | None = None, cpus: int | None = None, retries: int = 3):
        self.address, self.retries = address, retries
        self.cpus = jax.local_device_count() if cpus is None else cpus
        check_count("cpus", self.cpus)
        check_count("retries", retries, 0)
        _check_reachable(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
        if address is None:  # Ray's name for: listen on loopback, not on the network's address
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        self._ray = require("ray", "ray")

    def __call__(
        self, store: Store, units: list[Unit], budget: float | None, progress: Progress
    ) -> None:
        """Compute the units that the store lacks; see `run_study`."""
        ray = self._ray
        start, total = time.monotonic(), sum(len(unit.plans) for unit in units)
        left = [unit for unit in units if not store.has_unit(unit.name)]
        running: dict[Any, Unit] = {}
        with self._session(), contextlib.ExitStack() as claims:
            task = ray.remote(num_cpus=self.cpus, max_retries=self.retries)(_compute)
            while left or running:
                late = budget is not None and time.monotonic() - start > 60 * budget
                for unit in [] if late else ready(store, left):
                    if claims.enter_context(store.claim(unit.name)):
                        running[task.remote(_packed(unit, _needed(store, unit)))] = unit
                        left.remove(unit)
                if not running:
                    if late or not left:
                        return
                    time.sleep(_POLL)  # another process computes what is left
                else:
                    done, _ = ray.wait(list(running), num_returns=1, timeout=_POLL)
                    for reference in done:
                        unit = running.pop(reference)
                        save_unit(store, unit, *_result(ray, reference, unit))
                left = [unit for unit in left if not store.has_unit(unit.name)]
                waiting = sum(len(unit.plans) for unit in [*left, *running.values()])
                progress(total - waiting, total, f"{len(running)} units at work", 0)

    @contextlib.contextmanager
    def _session(self) -> Iterator[None]:
        """Ray, started or joined; left as it was found."""
        if self._ray.is_initialized():
            yield
            return
        inherited = {k: v for k, v in os.environ.items() if k.startswith(_INHERITED)}
        inherited.setdefault("OMP_NUM_THREADS", str(cores_in_reach()))  # Ray would say cpus
        if not cores_were_chosen():
            inherited["JAX_NUM_CPU_DEVICES"] = str(jax.local_device_count())
        options: dict[str, Any] = {"address": self.address}
        if self.address is None:
            options = {"address": "local", "_node_ip_address": "127.0.0.1"}
            options |= {"object_store_memory": _STORE_BYTES, "include_dashboard": False}
            inherited["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        options |= {"log_to_driver": False, "logging_level": "ERROR"}
        before = signal.getsignal(signal.SIGTERM)  # Ray's own handler would stay
        with warnings.catch_warnings():  # of JAX, that Ray forks: it runs other programs at once
            warnings.simplefilter("ignore", RuntimeWarning)
            self._ray.init(**options, runtime_env={"env_vars": inherited})
        try:
            yield
        finally:
            self._ray.shutdown()
            if before is not None and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)


def _check_reachable(address: str | None) -> None:
    """Ray itself would try for a quarter of an hour."""
    found = re.fullmatch(r"(?:ray://)?(.+):(\d{1,5})", address or "")
    if address in (None, "auto", "local") or (address and "://" in address and not found):
        return
    if found is None:
        raise ValueError(f"address: expected 'host:port', 'ray://...' or 'auto'; got {address!r}.")
    try:
        socket.create_connection((found[1], int(found[2])), _ANSWER).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"address: no Ray cluster answers at {address} ({error}).") from error


class _Copies:
    """What earlier units left, as `Saved` shows it, sent along with a task."""

    def __init__(self, cells: dict[str, Cell], weights: dict[str, bytes]):
        self._cells, self._weights = cells, weights

    def values(self, cell_id: str) -> dict[str, float]:
        return self._done(cell_id).values

    def flow(self, cell_id: str) -> Flow:
        self._done(cell_id)
        with tempfile.TemporaryDirectory(prefix="otflow-") as folder:
            path = Path(folder) / "flow.safetensors"
            path.write_bytes(self._weights[cell_id])
            return load_model(path).flow

    def _done(self, cell_id: str) -> Cell:
        cell = self._cells[cell_id]
        if cell.status == "failed":
            raise LookupError(f"needs {cell_id}, which failed")
        return cell


def _needed(store: Store, unit: Unit) -> _Copies:
    """The cells of the units that this one comes after."""
    cells = {cell.id: cell for name in unit.after for cell in store.unit(name)}
    weights = {
        name: store.weights_path(name).read_bytes() for name, cell in cells.items() if cell.weights
    }
    return _Copies(cells, weights)


def _packed(*what: Any) -> bytes:
    """A pickle: Ray would unpack arrays of float64 as float32 (`_unpacked`)."""
    return bytes(require("ray.cloudpickle", "ray").dumps(what))


def _unpacked(content: bytes) -> Any:
    with precision("float64"):
        return require("ray.cloudpickle", "ray").loads(content)


def _compute(content: bytes) -> bytes:
    """A unit's outcomes and its seconds, in a worker."""
    unit, saved = _unpacked(content)
    return _packed(*compute_unit(unit, saved, lambda steps: None))


def _result(ray: Any, reference: Any, unit: Unit) -> tuple[list[Outcome], float]:
    try:
        outcomes, seconds = _unpacked(ray.get(reference))
        return outcomes, seconds
    except ray.exceptions.RayError as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return [Outcome({}, error=message) for _ in unit.plans], 0.0
