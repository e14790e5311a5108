"""Two processes on loopback: the losses of one, a killed one is named, one process resumes."""

import json
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from otflow import OTFlow
from otflow.parallel import join_processes
from otflow.parallel.meeting import Place, meet
from otflow.parallel.processes import find_place
from tests.parallel.forks import Forks

DATA = np.sinh(np.random.default_rng(0).standard_normal((401, 2))) + 1
SETTINGS = {"width": 4, "depth": 0, "max_iter": 50, "n_steps": 1, "batch_size": 128}
SETTINGS |= {"random_state": 0, "dtype": "float64", "verbose": False}
WATCH = {"checkpoint_every": 1, "resume": True}

IMPORTS = "import otflow.estimator.estimator, otflow.parallel"
SCRIPT = """
import json, os, sys
import numpy as np
from otflow.parallel import join_processes
place = join_processes(timeout=60, heartbeat=20)
from otflow import OTFlow
folder, victim, source, settings, watch = sys.argv[1:]
def on_validation(row):
    if row["iteration"] == 25 and place.process_id == int(victim):
        os.kill(os.getpid(), 9)
data, watch = np.load(f"{folder}/shared.npy"), json.loads(watch)
if source == "stream":
    from otflow import ShardedTable
    data = ShardedTable(f"{folder}/shared.npy", piece_rows=40, buffer_rows=160, lanes=4)
    watch = {}
else:
    watch["checkpoint"] = f"{folder}/state"
flow = OTFlow(**json.loads(settings)).fit(data, on_validation=on_validation, **watch)
import jax
print("done", jax.device_count(), *map(repr, flow.history_["objective"]))
"""


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    """Processes with one device each."""
    folder = tmp_path_factory.mktemp("forks")
    with Forks(IMPORTS, folder, JAX_NUM_CPU_DEVICES="1") as forks:
        yield forks


@pytest.fixture
def job(forks, tmp_path):
    """What became of the n processes of a job on the rows."""
    np.save(tmp_path / "shared.npy", DATA)

    def run(n, victim=-1, source="rows"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        common = {"OTFLOW_COORDINATOR": f"127.0.0.1:{port}", "OTFLOW_PROCESSES": str(n)}
        each = [common | {"OTFLOW_PROCESS": str(i)} for i in range(n)]
        words = (str(tmp_path), str(victim), source, json.dumps(SETTINGS), json.dumps(WATCH))
        return forks.run(SCRIPT, *words, each=each)

    return run


@pytest.fixture(scope="module")
def expected():
    """The objectives of one process that is joined to nobody."""
    return OTFlow(**SETTINGS).fit(DATA).history_["objective"]


def losses(done):
    """The devices and the objectives of a process that came to its end."""
    assert done.code == 0, done.err
    (line,) = (line for line in done.out.splitlines() if line.startswith("done"))
    _, devices, *objectives = line.split()
    return int(devices), np.array(objectives, float)


def test_two_processes_train_like_one(job, expected):
    """float64: sums in another order differ by 1e-16 a step, and 50 steps amplify it little."""
    (devices, first), (_, second) = map(losses, job(2))
    assert devices == 2
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, expected, rtol=1e-9)


@pytest.mark.slow
def test_two_processes_train_on_a_stream_like_one(job):
    """Rows above hold the promise; here every process reads lanes of its own."""
    (devices, first), (_, second) = map(losses, job(2, source="stream"))
    ((one, alone),) = map(losses, job(1, source="stream"))
    assert (devices, one) == (2, 1)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, alone, rtol=1e-9)


@pytest.mark.slow
def test_a_killed_process_is_named_and_one_process_goes_on(job, expected, tmp_path):
    began = time.monotonic()
    first, victim = job(2, victim=1)
    assert victim.code == -signal.SIGKILL
    assert first.code == 70
    assert re.search(r"process 1 of 2 was lost .*resume", first.err)
    assert time.monotonic() - began < 120
    heard = []
    watch = WATCH | {"checkpoint": tmp_path / "state", "on_validation": heard.append}
    flow = OTFlow(**SETTINGS).fit(DATA, **watch)
    assert [row["iteration"] for row in heard] == [50]
    np.testing.assert_allclose(flow.history_["objective"], expected, rtol=1e-9)


def test_a_job_of_one_is_joined_to_nobody():
    assert join_processes("127.0.0.1:1", 1, 0) == Place("127.0.0.1:1", 1, 0)


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
