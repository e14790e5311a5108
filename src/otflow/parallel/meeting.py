"""The processes of a job wait for one another before JAX does, which would abort with a trace."""

import contextlib
import socket
import time
from typing import NamedTuple

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HELLO = b"otflow"
_POLL = 0.2  # seconds between attempts to reach process 0


class Place(NamedTuple):
    """Where a process stands in a job."""

    coordinator: str
    n_processes: int
    process_id: int


def meet(place: Place, timeout: float) -> None:
    """Return once all processes run: they call at the coordinator's port, which is free after.

    Args:
        place: of this process.
        timeout: seconds to wait.

    Raises:
        TimeoutError: not all have come by then; says who.
        OSError: process 0 cannot listen there.
    """
    host, port = place.coordinator.rsplit(":", 1)
    end = time.monotonic() + timeout
    if place.process_id:
        _call(place, (host, int(port)), end)
        return
    came: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        interface = "127.0.0.1" if host in LOOPBACK else ""
        server = stack.enter_context(socket.create_server((interface, int(port))))
        while len(came) < place.n_processes - 1:
            with contextlib.suppress(TimeoutError):
                server.settimeout(max(end - time.monotonic(), 1e-3))
                caller = stack.enter_context(server.accept()[0])
                caller.settimeout(10)
                told = caller.recv(64).split()
                if len(told) == 2 and told[0] == _HELLO and told[1].isdigit():
                    came[int(told[1])] = caller
            if time.monotonic() > end:
                missing = [str(i) for i in range(1, place.n_processes) if i not in came]
                raise TimeoutError(
                    f"process 0 of {place.n_processes} waited at {place.coordinator}; "
                    f"process(es) {', '.join(missing)} did not come."
                )
        server.close()
        for caller in came.values():
            caller.sendall(_HELLO)


def _call(place: Place, address: tuple[str, int], end: float) -> None:
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            left = max(end - time.monotonic(), 1e-3)
            with socket.create_connection(address, min(left, 10)) as server:
                server.sendall(_HELLO + f" {place.process_id}".encode())
                server.settimeout(max(end - time.monotonic(), 1e-3))
                if server.recv(64) == _HELLO:
                    return
        time.sleep(_POLL)
    raise TimeoutError(
        f"process {place.process_id} of {place.n_processes} waited for process 0 at "
        f"{place.coordinator}, or with it for another one, which did not come."
    )
