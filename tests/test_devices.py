"""Rows spread over devices: the same numbers as on one, to rounding. Each script is a process."""

import os
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from otflow import OTFlow
from otflow.cores import cores_in_reach
from otflow.datasets import moons
from otflow.devices import map_chunks, one_lapack_thread, row_mesh, use_all_cores
from tests.fakes import no_training


def run(script: str, *arguments: str, **environment: str) -> str:
    """The output of a fresh interpreter; its errors fail the test."""
    clean = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_changes_nothing():
    out = run("""
        import otflow, otflow.devices, otflow.estimator, jax
        print(jax.config.jax_num_cpu_devices, jax.local_device_count())
    """)
    assert out.split() == ["-1", "1"]


def test_all_cores_before_the_first_computation_only():
    script = """
        import jax, otflow
        jax.config.update("jax_num_cpu_devices", 3) if {chosen} else None
        jax.numpy.ones(2) if {late} else None
        print(otflow.use_all_cores(), jax.local_device_count())
    """
    found = {
        case: run(script.format(chosen=case == "chosen", late=case == "late")).split()
        for case in ("free", "chosen", "late")
    }
    cores = str(cores_in_reach())
    assert found == {"free": [cores, cores], "chosen": ["3", "3"], "late": ["1", "1"]}
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}
    assert run(script.format(chosen=False, late=False), **flags).split() == ["3", "3"]


FRESH = """
    import os, sys, traceback
    import jax, numpy as np
    import otflow.certificates.certify, otflow.estimator, otflow.studies.runner
    from otflow import OTFlow, load, studies, targets, transport_between
    from otflow.cli.app import main
    from otflow.datasets import moons
    from otflow.studies.presets import make_study
    from otflow.studies.problems import make_problem

    path = sys.argv[1]
    x = moons(60, seed=0)
    np.save(path + "/x.npy", x)

    class Reached(BaseException):
        pass

    def reached(*args, **kwargs):
        raise Reached

    def mixture():
        return targets.GaussianMixture([0.5, 0.5], [[0.0, 0.0], [1.0, 0.0]], [np.eye(2)] * 2)

    settings = {"max_iter": 1, "width": 2, "random_state": 0, "verbose": False}
    model, argv = path + "/model.otflow", ["otflow", "fit", path + "/x.npy", "--out", path + "/m"]
    entries = {
        "fit": lambda: OTFlow(**settings).fit(x),
        "fit, another target": lambda: OTFlow(**settings, target=mixture()).fit(x),
        "fit_density": lambda: OTFlow(**settings).fit_density(mixture()),
        "partial_fit": lambda: OTFlow(**settings).partial_fit(x),
        "partial_fit, loaded": lambda: load(model).partial_fit(x),
        "transport_between": lambda: transport_between(x, x + 1, max_components=1),
        "certify": lambda: load(model).certify(x),
        "study": lambda: studies.run_study(make_study("alpha", make_problem("gaussian", 2))),
        "command": lambda: (sys.argv.__setitem__(slice(None), argv), main()),
    }
    otflow.estimator.fit_flow = otflow.studies.runner.compute_unit = reached
    otflow.estimator._DENSITY_ROWS = otflow.estimator._VALIDATION_ROWS = 8
    sys.modules["otflow.certificates.certify"].Task = reached
    for name, entry in entries.items():
        sys.stdout.flush()
        if child := os.fork():
            os.waitpid(child, 0)
            continue
        try:
            entry()
        except Reached:
            pass
        except BaseException:
            traceback.print_exc()
        print(name, jax.local_device_count(), sep=": ", flush=True)
        os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fork is a fresh process that has imported")
def test_every_entry_point_computes_on_all_cores(tmp_path, monkeypatch):
    """Each is the first use of JAX in its process, as it is for a user."""
    no_training(monkeypatch)
    model = OTFlow(random_state=0, verbose=False).fit(moons(60, seed=0))
    model.save(tmp_path / "model.otflow")
    out = run(FRESH, str(tmp_path))
    found = dict(line.rsplit(": ", 1) for line in out.splitlines() if ": " in line)
    assert len(found) == 9
    assert set(found.values()) == {str(cores_in_reach())}, found


FIT = """
    import numpy as np, jax, warnings
    from otflow import OTFlow
    from otflow.datasets import moons
    x = moons(801, seed=0)  # validation and batches that no number of devices divides
    model = OTFlow(
        width=4, depth=0, batch_size=401, max_iter=30, random_state=0, dtype="float64",
        verbose=False, scheme="SCHEME", n_steps=2
    ).fit(x)
    history = model.history_["objective"]
    history += [model.score(x), *model.inverse_transform(model.transform(x[:300])).ravel()[:4]]
    print(jax.local_device_count(), *map(repr, map(float, history)))
"""


@pytest.mark.parametrize("scheme", ["conforming", pytest.param("rk4", marks=pytest.mark.slow)])
def test_three_devices_train_like_one(scheme):
    """float64; sums in another order differ by 1e-16 a step, and 30 steps amplify it little."""
    script = FIT.replace("SCHEME", scheme)
    one, three = (run(script, JAX_NUM_CPU_DEVICES=n).split() for n in ("1", "3"))
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
    from threadpoolctl import threadpool_info

    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    import scipy.linalg  # noqa: F401

    before = threads()
    with one_lapack_thread():
        assert set(threads()) == {1}
    assert threads() == before


def test_use_all_cores_tells_how_many_devices_there_are():
    assert use_all_cores() == jax.local_device_count()
