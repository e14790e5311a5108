"""Units on Ray: the table of the local backend, also where a worker dies. Needs otflow[ray]."""

import dataclasses
import importlib.util
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest

from otflow.studies.alpha import AlphaStudy
from otflow.studies.members import Network
from otflow.studies.problems import make_problem
from otflow.studies.runner import AbstractStudy, run_study
from otflow.studies.store import Store
from otflow.training.ensemble import EnsembleConfig
from tests.studies.fakes import Ladder

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs Ray: pip install 'otflow[ray]'"
)
# Ray leaves files and sockets to the garbage collector, and warns of its own future defaults
quiet = pytest.mark.filterwarnings("ignore")


@dataclasses.dataclass(frozen=True)
class DiesOnce:
    """Kills its own process the first time it is called for alpha = 2."""

    flag: Path

    def __call__(self, alpha: float) -> None:
        if alpha == 2 and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@dataclasses.dataclass(frozen=True)
class WhoListens:
    """Writes down the addresses at which processes of Ray listen, then goes on to the next."""

    file: Path
    then: DiesOnce

    def __call__(self, alpha: float) -> None:
        import psutil

        ours = [p for p in psutil.Process().parents() if p.name() in ("raylet", "gcs_server")]
        ours += [child for parent in list(ours) for child in parent.children(recursive=True)]
        heard = {
            c.laddr.ip for p in ours for c in p.net_connections("inet") if c.status == "LISTEN"
        }
        with self.file.open("a") as file:  # of every worker
            file.write(" ".join([*heard, ""]))
        self.then(alpha)


def table(study: AbstractStudy, folder: Path, backend: Any = None) -> list[dict[str, Any]]:
    """The stored cells, all but the seconds they took."""
    run_study(study, folder, backend=backend)
    with Store.open(folder) as store:
        return [dataclasses.asdict(cell) | {"seconds": 0} for cell in store.cells()]


@quiet
@pytest.mark.slow
def test_an_alpha_study_has_the_same_table(tmp_path, monkeypatch):
    from otflow.studies.ray_backend import RayBackend

    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # as in this process
    config = EnsembleConfig(first_order=4, first_order_rows=32, natural=3, natural_rows=64)
    problem = make_problem("product", 1)
    study = AlphaStudy(problem, (1.0, 3.0), (0, 1), Network(width=3), config, evaluation=1000)
    local = table(study, tmp_path / "local")
    assert table(study, tmp_path / "ray", RayBackend(cpus=1)) == local
    assert [cell["status"] for cell in local] == ["done"] * 5


BAD = ((4.0, 1),)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """(the table of a study one of whose workers was killed, the folder of what was noted)."""
    from otflow.studies.ray_backend import RayBackend

    folder = tmp_path_factory.mktemp("ray")
    before = DiesOnce(folder / "died")
    if Path("/proc/net/tcp").exists():  # Ray's workers have psutil
        before = WhoListens(folder / "listening", before)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as `quiet`
        found = table(Ladder(n=3, bad=BAD, before=before), folder / "study", RayBackend(cpus=1))
    return found, folder


@quiet
def test_a_killed_worker_loses_nothing(ran, tmp_path):
    found, folder = ran
    assert found == table(Ladder(n=3, bad=BAD), tmp_path / "local")
    assert (folder / "died").exists()


@quiet
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="Linux tells who listens")
def test_a_local_ray_listens_on_loopback_only(ran):
    heard = set((ran[1] / "listening").read_text().split())
    assert heard
    assert heard <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@quiet
def test_signals_are_handled_as_before(ran):
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_retries_and_cpus_are_checked():
    from otflow.studies.ray_backend import RayBackend

    for options in ({"cpus": 0}, {"retries": -1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            RayBackend(**options)
