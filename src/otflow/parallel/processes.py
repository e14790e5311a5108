"""One training run on several processes, of one machine or of many."""

import os
import re
import socket
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from otflow.parallel.devices import use_all_cores
from otflow.parallel.job import on_loss
from otflow.parallel.meeting import LOOPBACK, Place, meet
from otflow.parallel.watch import Lookout
from otflow.support.checks import check_count, check_number

_SLURM_PORT = 61_440  # the first of 4,096, of which the job's number picks one


def join_processes(
    coordinator: str | None = None,
    n_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 300.0,
    heartbeat: float = 100.0,
) -> Place:
    """Join this process to a job; call it in each of them before anything uses JAX.

    `OTFlow.fit` then trains on the devices of all processes: every one calls it with the same
    arguments and data, takes its share of every batch, and gets the same flow. Process 0 writes
    the checkpoint. A job of one process is joined to nobody.

    Args:
        coordinator: "host:port" at which the others reach process 0.
        n_processes: of the job, >= 1.
        process_id: 0, 1, ...: this one's.
        timeout: seconds in which all must have come, and in which all must leave.
        heartbeat: seconds without a sign of life after which a process counts as lost; one that
            dies is noticed at once.

    What is not given is taken from OTFLOW_COORDINATOR, OTFLOW_PROCESSES and OTFLOW_PROCESS, then
    from SLURM's variables.

    Returns:
        Where this process stands.

    Raises:
        ValueError, TypeError: an argument is missing or wrong.
        TimeoutError: the others did not come in time.
        RuntimeError: JAX has computed something already.
    """
    place = find_place(coordinator, n_processes, process_id, os.environ)
    check_number("timeout", timeout, positive=True)
    check_number("heartbeat", heartbeat, positive=True)
    if place.n_processes == 1:
        return place
    host, port = place.coordinator.rsplit(":", 1)
    local = host in LOOPBACK
    meet(place, timeout)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM
    try:
        jax.distributed.initialize(
            place.coordinator,
            place.n_processes,
            place.process_id,
            cluster_detection_method="deactivate",
            initialization_timeout=int(timeout),
            heartbeat_timeout_seconds=int(np.ceil(heartbeat)),
            shutdown_timeout_seconds=int(timeout),
            coordinator_bind_address=f"127.0.0.1:{port}" if local else None,
        )
    except RuntimeError as error:
        raise RuntimeError(
            f"process {place.process_id} could not join the job at {place.coordinator}: {error}"
        ) from error
    use_all_cores()
    _watch(place, host, "127.0.0.1" if local else "", timeout)
    return place


def _watch(place: Place, host: str, interface: str, timeout: float) -> None:
    first = place.process_id == 0
    server = socket.create_server((interface, 0)) if first else None
    own = np.int32(0 if server is None else server.getsockname()[1])
    port = int(multihost_utils.broadcast_one_to_all(own))
    address = None if first else (host, port)
    watch = Lookout(place.process_id, place.n_processes, server, address, timeout)
    on_loss(watch.find_lost, watch.fail)


def find_place(
    coordinator: str | None,
    n_processes: int | None,
    process_id: int | None,
    environment: Mapping[str, str],
) -> Place:
    """What is given, and for the rest what the environment says, checked.

    Raises:
        ValueError, TypeError: as `join_processes`.
    """
    coordinator = coordinator or environment.get("OTFLOW_COORDINATOR") or _slurm(environment)
    n_processes = _number(n_processes, environment, "OTFLOW_PROCESSES", "SLURM_NTASKS")
    process_id = _number(process_id, environment, "OTFLOW_PROCESS", "SLURM_PROCID")
    if n_processes is None or process_id is None or coordinator is None:
        found = f"{coordinator}, {n_processes}, {process_id}"
        raise ValueError(
            "coordinator, n_processes, process_id: expected all three, as arguments or in "
            f"OTFLOW_COORDINATOR, OTFLOW_PROCESSES and OTFLOW_PROCESS or by SLURM; got {found}."
        )
    check_count("n_processes", n_processes)
    check_count("process_id", process_id, 0)
    if process_id >= n_processes:
        raise ValueError(f"process_id: expected a number below {n_processes}; got {process_id}.")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(f"coordinator: expected 'host:port'; got {coordinator!r}.")
    return Place(coordinator, int(n_processes), int(process_id))


def _number(given: int | None, environment: Mapping[str, str], *names: str) -> int | None:
    if given is not None:
        return given
    for name in names:
        if text := environment.get(name):
            if not text.isdigit():
                raise ValueError(f"{name}: expected a number; got {text!r}.")
            return int(text)
    return None


def _slurm(environment: Mapping[str, str]) -> str | None:
    """The job's first node, and a port that follows from the job's number."""
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    job = environment.get("SLURM_JOB_ID", "")
    found = re.match(r"([^,\[]+)(?:\[([0-9]+))?", nodes or "")
    if found is None or not job.isdigit():
        return None
    return f"{found[1]}{found[2] or ''}:{_SLURM_PORT + int(job) % 4096}"
