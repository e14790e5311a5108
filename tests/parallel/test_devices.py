"""Rows spread over devices: the same numbers as on one, to rounding; who may choose devices."""

from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_info

from otflow import OTFlow
from otflow.certificates import DualConfig
from otflow.datasets import moons
from otflow.parallel.cores import cores_in_reach
from otflow.parallel.devices import map_chunks, one_lapack_thread, row_mesh, use_all_cores
from tests.fakes import no_training
from tests.parallel.forks import Forks

IMPORTS = """
import otflow.estimator.between, otflow.certificates.certify, otflow.cli.app, otflow.datasets
import otflow.parallel.devices, otflow.estimator.estimator, otflow.studies.presets
"""


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    """Processes that have imported otflow and not used JAX."""
    with Forks(IMPORTS, tmp_path_factory.mktemp("forks")) as forks:
        yield forks


def test_importing_changes_nothing(forks):
    out = forks.output("""
import jax
print(jax.config.jax_num_cpu_devices, jax.local_device_count())
""")
    assert out.split() == ["-1", "1"]


def test_all_cores_before_the_first_computation_only(forks):
    script = """
import jax, otflow
jax.config.update("jax_num_cpu_devices", 3) if {chosen} else None
jax.numpy.ones(2) if {late} else None
print(otflow.use_all_cores(), jax.local_device_count())
"""
    found = {
        case: forks.output(script.format(chosen=case == "chosen", late=case == "late")).split()
        for case in ("free", "chosen", "late")
    }
    cores = str(cores_in_reach())
    assert found == {"free": [cores, cores], "chosen": ["3", "3"], "late": ["1", "1"]}
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}
    out = forks.output(script.format(chosen=False, late=False), **flags)
    assert out.split() == ["3", "3"]


ENTRIES = {
    "fit": "OTFlow(**settings).fit(x)",
    "fit, another target": "OTFlow(**settings, target=mixture()).fit(x)",
    "fit_density": "OTFlow(**settings).fit_density(mixture())",
    "partial_fit": "OTFlow(**settings).partial_fit(x)",
    "partial_fit, loaded": "load(model).partial_fit(x)",
    "transport_between": "transport_between(x, x + 1, max_components=1)",
    "certify": "load(model).certify(x)",
    "study": 'studies.run_study(make_study("alpha", make_problem("gaussian", 2)))',
    "command": "main()",
}
ENTER = """
import sys
import jax, numpy as np
import otflow.certificates.certify, otflow.estimator.estimator, otflow.studies.runner
from otflow import OTFlow, load, studies, targets, transport_between
from otflow.cli.app import main
from otflow.datasets import moons
from otflow.studies.presets import make_study
from otflow.studies.problems import make_problem

class Reached(BaseException):
    pass

def reached(*args, **kwargs):
    raise Reached

def mixture():
    return targets.GaussianMixture([0.5, 0.5], [[0.0, 0.0], [1.0, 0.0]], [np.eye(2)] * 2)

entry, model, rows, out = sys.argv[1:]
sys.argv = ["otflow", "fit", rows, "--out", out]
x = moons(60, seed=0)
settings = {"max_iter": 1, "width": 2, "n_steps": 1, "random_state": 0, "verbose": False}
otflow.estimator.base.fit_flow = otflow.studies.runner.compute_unit = reached
otflow.estimator.estimator._DENSITY_ROWS = otflow.estimator.estimator._VALIDATION_ROWS = 8
sys.modules["otflow.certificates.certify"].Task = reached
try:
    eval(entry)
except Reached:
    pass
print(jax.local_device_count())
"""


def test_every_entry_point_computes_on_all_cores(forks, tmp_path, monkeypatch):
    """Each is the first use of JAX in its process, as it is for a user."""
    no_training(monkeypatch)
    x = moons(60, seed=0)
    OTFlow(width=2, n_steps=1, random_state=0, verbose=False).fit(x).save(tmp_path / "model.otflow")
    np.save(tmp_path / "x.npy", x)
    paths = [str(tmp_path / name) for name in ("model.otflow", "x.npy", "out")]
    found = {name: forks.output(ENTER, entry, *paths) for name, entry in ENTRIES.items()}
    assert found == dict.fromkeys(ENTRIES, f"{cores_in_reach()}\n")


FIT = """
import sys
import numpy as np, jax
from otflow import OTFlow
from otflow.certificates import DualConfig
from otflow.datasets import moons
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
x = moons(801, seed=0)  # validation and batches that no number of devices divides
model = OTFlow(
    width=4, depth=0, batch_size=401, max_iter=30, random_state=0, dtype="float64",
    verbose=False, scheme=sys.argv[2], n_steps=2
).fit(x)
history = model.history_["objective"]
history += [model.score(x), *model.inverse_transform(model.transform(x[:300])).ravel()[:4]]
print(jax.local_device_count(), *map(repr, map(float, history)))
"""


@pytest.mark.parametrize("scheme", ["conforming", pytest.param("rk4", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_three_devices_train_like_one(forks, scheme):
    """float64; sums in another order differ by 1e-16 a step, and 30 steps amplify it little."""
    one, three = (forks.output(FIT, n, scheme).split() for n in ("1", "3"))
    assert (one[0], three[0]) == ("1", "3")
    np.testing.assert_allclose(
        np.array(three[1:], float), np.array(one[1:], float), rtol=1e-9, atol=1e-9
    )


def test_a_mesh_has_no_tiny_shards():
    assert row_mesh(63).size == 1
    assert row_mesh(10**6).size == jax.local_device_count()


@pytest.mark.parametrize("n", [1, 7, 8, 20])
def test_chunks_are_put_together(n):
    x, scale = np.arange(2.0 * n).reshape(n, 2), np.float32(3)
    found = map_chunks(_scaled, scale, (x, None), 8)
    np.testing.assert_array_equal(found["twice"], 6 * x)
    np.testing.assert_array_equal(found["sum"], 3 * x.sum(axis=1))


def _scaled(scale, x, nothing):
    assert nothing is None
    return {"twice": 2 * scale * x, "sum": scale * x.sum(axis=1)}


def test_lapack_threads_are_given_back():
    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    import scipy.linalg  # noqa: F401

    before = threads()
    with one_lapack_thread():
        assert set(threads()) == {1}
    assert threads() == before


def test_lapack_threads_are_given_back_by_the_last_to_leave():
    """In whatever order: nobody within sees more than one, and the process has its own again."""
    blas = ThreadpoolController()

    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    with blas.limit(limits=2, user_api="blas"):
        first, second = one_lapack_thread(), one_lapack_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert threads() == {1}
        second.__exit__(None, None, None)
        assert threads() == {2}


@pytest.mark.parametrize(
    "names",
    [("score", "sample"), pytest.param(("score", "sample", "certify"), marks=pytest.mark.slow)],
)
def test_threads_at_once(trained, names):
    """The numbers of each alone, and the process's BLAS as it was."""
    model, x = trained("conforming"), moons(256, seed=3)
    quick = DualConfig(width=8, regression_steps=20, ascent_steps=5, batch_size=64)
    jobs = {
        "score": lambda: model.score_samples(x),
        "sample": lambda: model.sample(256, random_state=0),
        "certify": lambda: model.certify(x, config=quick).upper,
    }
    alone = {name: jobs[name]() for name in names}
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        with ThreadPoolExecutor(4) as pool:
            found = [(name, pool.submit(jobs[name])) for name in 4 * names]
        for name, result in found:
            np.testing.assert_array_equal(result.result(), alone[name])
        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        assert {pool["num_threads"] for pool in pools} == {2}


def test_use_all_cores_tells_how_many_devices_there_are():
    assert use_all_cores() == jax.local_device_count()
