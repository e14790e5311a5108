"""Small models and studies whose reports the tests look at."""

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import otflow.estimator.fitting
from otflow import OTFlow
from otflow.certificates.certificate import BudgetItem, Certificate, Finding, Line
from otflow.datasets import toy
from otflow.studies.cell import Cell
from otflow.studies.runner import _writer
from otflow.studies.store import Store
from otflow.training import TrainingResult
from tests.fakes import SMALL, untrained
from tests.studies.fakes import exact_flow

HOSTILE = '</script><script>window.hurt = 1</script><img src=x onerror="hurt=1">$x_1$'
ALPHAS = (1.0, 10.0, 100.0)
CERTIFICATE = Certificate(
    0.9,
    1.1,
    0.95,
    (
        Line("1/2 W2^2(rho0, T#rho0)", 1.1, (0.9, 1.1), "proved (95 %)", "squared units", "<both>"),
        Line("KL(T#rho0, target)", float("nan"), None, "proved (95 %)", "nats", "unknown"),
        Line("straightness", 0.01, (None, 0.02), "estimated", "squared units", "straight"),
    ),
    (BudgetItem("penalty", 0.3, "raise alpha"), BudgetItem("inverse", float("nan"), "float64")),
    (Finding("paths are not straight"),),
    0,
    500,
    500,
    2,
    "the standardised columns",
    1.5,
)


def table(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Rows with a bend, so that they are no Gaussian."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * np.linspace(1, 2, d) + 3
    x[:, 0] += 0.5 * x[:, -1] ** 2
    return x


def framed(rows: np.ndarray) -> Any:
    """Rows with the columns of `plane`."""
    import pandas

    return pandas.DataFrame(rows, columns=["width", HOSTILE])


def _train(scale: float, *args: Any, **kwargs: Any) -> TrainingResult:
    """In the place of `otflow.training.train`: a network with random output weights, at once."""
    found = untrained(*args, **kwargs)
    rng = np.random.default_rng(0)

    def random(w: Any) -> Any:
        return jnp.asarray(scale * rng.standard_normal(w.shape), w.dtype)

    potential = eqx.tree_at(lambda p: p.terms[-1].w, found.potential, replace_fn=random)
    values = np.linspace(3.0, 2.0, 3)
    history = {name: list(values + i) for i, name in enumerate(found.history)}
    history["iteration"] = [0, 10, 20]
    return dataclasses.replace(found, potential=potential, history=history, best_iteration=10)


def model(rows: Any, n_steps: int = 1, scale: float = 0.5) -> OTFlow:
    """A flow of the rows that took no time to train: its Gaussian base and a random network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(otflow.estimator.fitting, "train", functools.partial(_train, scale))
        return OTFlow(
            **SMALL | {"scheme": "conforming", "n_steps": n_steps, "potential": "resnet"}
        ).fit(rows)


@functools.cache
def plane() -> OTFlow:
    """A flow of moons with a hostile column name, whose paths bend."""
    return model(framed(toy("moons", 512, 0)), n_steps=2, scale=2.0)


@functools.cache
def pixels() -> OTFlow:
    """A flow of images of 4 x 4 pixels."""
    return model(table(300, 16))


def alpha_store(folder: Path, problem: str = "gaussian") -> Path:
    """A finished alpha study whose flows are the exact minimisers of J_alpha."""
    from otflow.studies.alpha import exact_values
    from otflow.studies.problems import make_problem

    settings = {"kind": "alpha", "problem": problem, "dim": 2}
    with Store.create(folder, settings) as store:
        for alpha in ALPHAS:
            known = exact_values(make_problem("gaussian", 2), alpha)
            values = {k: known[f"exact_{k}"] for k in ("transport", "kl", "objective")}
            values |= {"limit_estimate": values["transport"] + 2 * alpha * values["kl"]}
            values |= {"map_error": 1e-3, "ot_error": 1 / alpha}
            values |= {f"{k}_se": 1e-9 for k in values} | known | {"invalid": 0.0}
            name = f"alpha={alpha:g},seed=0"
            path = store.weights_path(name)
            inputs = {"alpha": alpha, "seed": 0}
            cell = Cell(name, inputs, 0, "done", values, weights=path.name)
            store.save_unit(name, [cell], {path.name: _writer(exact_flow(alpha))})
    return folder


@functools.cache
def alpha_folder() -> Path:
    """The same, made once; the system's temporary folder keeps it."""
    return alpha_store(Path(tempfile.mkdtemp(prefix="otflow-test-")) / "<study>")
