"""Exported programs: the same numbers where otflow cannot be imported."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("flatbuffers")

from otflow import GaussianMixture, OTFlow
from otflow.model.export import export_program
from tests.fakes import SMALL, no_training

# compiled quickly; with this seed the untrained network does not fold the rows
QUICK = SMALL | {"scheme": "conforming", "n_steps": 3, "width": 4, "depth": 0, "random_state": 10}
ROWS = np.random.default_rng(0).standard_normal((40, 2)) * [2.0, 0.1] + [30.0, -1.0]

RUN = """
import json, sys
sys.modules["otflow"] = None  # importing it fails
import jax, numpy as np
from jax import export
folder, dtype = sys.argv[1:]
jax.config.update("jax_enable_x64", dtype == "float64")
jax.numpy.linalg.cholesky(jax.numpy.eye(1))  # as the guide says
found = {}
for what in ("forward", "inverse", "log_prob"):
    with open(f"{folder}/{what}", "rb") as file:
        program = export.deserialize(bytearray(file.read()))
    x = np.load(f"{folder}/{what}.npy").astype(dtype)
    found[what] = [np.asarray(program.call(x[:n])).tolist() for n in (len(x), 1)]
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        pytest.param({}, 2e-4, id="conforming in float32"),
        pytest.param(
            {"scheme": "rk4", "dtype": "float64", "depth": 1, "random_state": 0},
            1e-9,
            id="rk4 in float64",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_programs_run_without_otflow(tmp_path, monkeypatch, settings, tolerance):
    """In a process of its own, at two numbers of rows, in the data's own units."""
    no_training(monkeypatch)
    model = OTFlow(**QUICK | settings | {"base": None}).fit(ROWS)
    z = model.transform(ROWS)
    expected = {"forward": z, "inverse": model.inverse_transform(z)}
    expected |= {"log_prob": model.score_samples(ROWS)}
    for what in expected:
        program = export_program(model.model_, what)
        (tmp_path / what).write_bytes(program)
        np.save(tmp_path / f"{what}.npy", z if what == "inverse" else ROWS)
    words = [sys.executable, "-c", RUN, str(tmp_path), model.dtype]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for what, (all_rows, one) in json.loads(done.stdout).items():
        np.testing.assert_allclose(all_rows, expected[what], rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(one, expected[what][:1], rtol=tolerance, atol=tolerance)


def test_another_target_goes_along(monkeypatch):
    """log_prob holds the target; the program is larger than its weights."""
    no_training(monkeypatch)
    target = GaussianMixture([0.5, 0.5], [[1.0, 0.0], [-1.0, 0.0]], [np.eye(2)] * 2)
    model = OTFlow(**QUICK, target=target).fit(ROWS)
    assert len(export_program(model.model_, "log_prob")) > 1000


def test_what_is_one_of_three(monkeypatch):
    no_training(monkeypatch)
    model = OTFlow(**QUICK).fit(ROWS)
    with pytest.raises(ValueError, match="what: expected one of .*; got 'samples'"):  # noqa: RUF043
        export_program(model.model_, "samples")
