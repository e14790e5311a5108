"""Every process of a job hears when another one dies, and which.

Process 0 holds a connection to each of the others. Where one closes without a farewell, its
process is lost: process 0 tells the others, which end at once; itself it lets training write its
checkpoint first. XLA's heartbeats would end them too, later and without a word on how to go on. A
process that ends on an error takes no farewell and does not wait for the others, as JAX would.
"""

import atexit
import contextlib
import os
import socket
import struct
import sys
import threading
from typing import Any

_GRACE = 20.0  # seconds for process 0 to leave by itself
_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h
_NUMBER = struct.Struct("!i")
_FAREWELL = -1
_ADVICE = "Start it again with its checkpoint and resume, on any number of processes."


class Lookout:
    """One process's part of the watch; made once all processes run.

    Args:
        process_id: of this one.
        n_processes: of the job.
        server: of process 0, listening; None elsewhere.
        address: of that server, for the others.
    """

    def __init__(
        self,
        process_id: int,
        n_processes: int,
        server: socket.socket | None,
        address: tuple[str, int] | None,
        timeout: float,
    ):
        self._id, self._n = process_id, n_processes
        self._lost: int | None = None
        self._known, self._ending, self._lock = threading.Event(), False, threading.Lock()
        self._failed = False
        self._peers: dict[int, socket.socket] = {}
        if server is not None:
            server.settimeout(timeout)
            while len(self._peers) < n_processes - 1:
                peer, _ = server.accept()
                peer.settimeout(timeout)
                self._peers[_read(peer) or 0] = peer
            server.close()
        else:
            assert address is not None
            peer = socket.create_connection(address, timeout)
            peer.sendall(_NUMBER.pack(process_id))
            self._peers[0] = peer
        for number, peer in self._peers.items():
            peer.settimeout(None)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            threading.Thread(target=self._follow, args=(number, peer), daemon=True).start()
        atexit.register(self._leave)  # after JAX's own handler: it runs before that
        hook = sys.excepthook

        def failing(*error: Any) -> None:
            self.fail()
            hook(*error)

        sys.excepthook = failing

    def fail(self) -> None:
        """This process ends on an error: it will not wait for the others."""
        self._failed = True

    def find_lost(self, seconds: float) -> int | None:
        """The number of a lost process, as soon as there is one."""
        self._known.wait(seconds)
        return self._lost

    def _follow(self, number: int, peer: socket.socket) -> None:
        told = _read(peer)
        if told == _FAREWELL or self._ending:
            return
        with self._lock:
            if self._known.is_set():
                return
            lost = self._lost = number if told is None else told
            self._known.set()
        if self._id == 0:
            for other in self._peers.values():
                _send(other, lost)
            threading.Event().wait(_GRACE)
        if not self._ending:
            self._end()

    def _end(self) -> None:
        text = f"process {self._lost} of {self._n} was lost and the job ends. {_ADVICE}"
        os.write(2, f"error: process {self._id}: {text}\n".encode())
        os._exit(_EXIT_CODE)

    def _leave(self) -> None:
        self._ending = True
        if not self._failed:
            for peer in self._peers.values():
                _send(peer, _FAREWELL)
        if self._failed or self._known.is_set():  # JAX would wait for the others, then abort
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(_EXIT_CODE)


def _send(peer: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # it has gone
        peer.sendall(_NUMBER.pack(number))


def _read(peer: socket.socket) -> int | None:
    """The next number; None where the connection ends."""
    found = b""
    try:
        while len(found) < _NUMBER.size:
            part = peer.recv(_NUMBER.size - len(found))
            if not part:
                return None
            found += part
    except OSError:
        return None
    return int(_NUMBER.unpack(found)[0])
