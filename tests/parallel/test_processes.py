"""Two processes on loopback: the losses of one, a killed one is named, one process resumes."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from otflow.parallel.meeting import Place, meet
from otflow.parallel.processes import find_place

SCRIPT = """
import os, sys
import numpy as np
from otflow.parallel import join_processes
place = join_processes(timeout=60, heartbeat=20)
from otflow import OTFlow
folder, victim = sys.argv[1], int(sys.argv[2])
def on_validation(row):
    if row["iteration"] == 25 and place.process_id == victim:
        os.kill(os.getpid(), 9)
data = np.random.default_rng(0).standard_normal((401, 2)) ** 3 + 1
kind = {"width": 4, "depth": 0, "max_iter": 50, "n_steps": 2, "dtype": "float64", "verbose": False}
if sys.argv[3] == "stream":
    from otflow import ShardedTable
    data = ShardedTable(f"{folder}/shared.npy", piece_rows=40, buffer_rows=160, lanes=4)
watch = {"checkpoint": f"{folder}/state", "checkpoint_every": 1, "resume": True}
flow = OTFlow(batch_size=128, random_state=0, **kind)
flow.fit(data, on_validation=on_validation, **watch if sys.argv[3] == "rows" else {})
import jax
print("done", jax.device_count(), *map(repr, flow.history_["objective"]))
"""


def start(n, process, folder, victim=-1, source="rows", port=1):
    """One process of a job, with one device."""
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS",)}
    environment |= {"OTFLOW_COORDINATOR": f"127.0.0.1:{port}", "OTFLOW_PROCESSES": str(n)}
    environment |= {"OTFLOW_PROCESS": str(process), "JAX_NUM_CPU_DEVICES": "1"}
    words = [sys.executable, "-c", SCRIPT, str(folder), str(victim), source]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, env=environment, stdout=pipe, stderr=pipe, text=True)


def job(n, folder, victim=-1, source="rows"):
    """(exit codes, outputs, errors) of all processes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = [start(n, i, folder, victim, source, port) for i in range(n)]
    try:
        told = [process.communicate(timeout=250) for process in running]
    finally:
        for process in running:
            process.kill()
    return [p.returncode for p in running], [out for out, _ in told], [err for _, err in told]


def losses(output):
    """The objectives that a process printed."""
    (line,) = (line for line in output.splitlines() if line.startswith("done"))
    return np.array(line.split()[2:], float)


@pytest.mark.parametrize("source", ["rows", pytest.param("stream", marks=pytest.mark.slow)])
def test_two_processes_train_like_one(tmp_path, source):
    """float64: sums in another order differ by 1e-16 a step, and 50 steps amplify it little."""
    data = np.random.default_rng(0).standard_normal((401, 2)) ** 3 + 1
    np.save(tmp_path / "shared.npy", data)
    codes, out, errors = job(2, tmp_path, source=source)
    assert codes == [0, 0], errors
    (tmp_path / "state").unlink(missing_ok=True)
    codes, alone, errors = job(1, tmp_path, source=source)
    assert codes == [0], errors
    assert out[0].split()[out[0].split().index("done") + 1] == "2"
    np.testing.assert_array_equal(losses(out[0]), losses(out[1]))
    np.testing.assert_allclose(losses(out[0]), losses(alone[0]), rtol=1e-9)


def test_a_killed_process_is_named_and_one_process_goes_on(tmp_path):
    began = time.monotonic()
    codes, _, errors = job(2, tmp_path, victim=1)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] == 70
    assert re.search(r"process 1 of 2 was lost .*resume", errors[0])
    assert time.monotonic() - began < 120
    codes, out, errors = job(1, tmp_path)
    assert codes == [0], errors
    (tmp_path / "state").unlink()
    _, expected, _ = job(1, tmp_path)
    np.testing.assert_allclose(losses(out[0]), losses(expected[0]), rtol=1e-9)


@pytest.mark.parametrize(
    ("process", "message"), [(0, r"process\(es\) 1, 2 did not come"), (1, "waited for process 0")]
)
def test_one_that_nobody_joins_says_so(process, message):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(TimeoutError, match=message):
        meet(Place(f"127.0.0.1:{port}", 3, process), 0.5)


def test_all_meet_whoever_comes_first():
    """A stranger at the port is no process of the job."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    places = [Place(f"127.0.0.1:{port}", 3, i) for i in (2, 0, 1)]
    with ThreadPoolExecutor() as pool:
        done = [pool.submit(meet, place, 20) for place in places[:2]]
        stranger = socket.create_connection(("127.0.0.1", port), 5) if wait_for(port) else None
        stranger.sendall(b"GET / HTTP/1.1")
        assert not any(d.done() for d in done)
        done.append(pool.submit(meet, places[2], 20))
        for d in done:
            d.result(timeout=30)
        stranger.close()


def wait_for(port):
    """Until somebody listens."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


def test_the_environment_fills_what_is_not_given():
    ours = {"OTFLOW_COORDINATOR": "a:1", "OTFLOW_PROCESSES": "3", "OTFLOW_PROCESS": "2"}
    slurm = {"SLURM_JOB_ID": "4097", "SLURM_NTASKS": "4", "SLURM_PROCID": "1"}
    slurm |= {"SLURM_STEP_NODELIST": "node[07-12],other"}
    assert find_place(None, None, None, ours) == ("a:1", 3, 2)
    assert find_place(None, None, None, slurm) == ("node07:61441", 4, 1)
    assert find_place(None, None, None, slurm | ours) == ("a:1", 3, 2)
    assert find_place("b:2", 5, 0, slurm | ours) == ("b:2", 5, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, 2, 0), "expected all three"),
        (("a:1", 2, 2), "process_id: expected a number below 2"),
        (("a:1", 0, 0), "n_processes: expected an integer >= 1"),
        (("a", 2, 0), "expected 'host:port'"),
        (("a:99999", 2, 0), "expected 'host:port'"),
    ],
)
def test_bad_places_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        find_place(*given, {})
