"""The picture of the demonstration."""

import importlib
import sys
from unittest import mock

import numpy as np
import pytest
from matplotlib.image import imread

from otflow.report import draw_demo
from otflow.support import extras


class Digits:
    """In the place of a fitted model of digits: draws of one grey value."""

    def sample(self, n, random_state=None):
        assert random_state == 4
        return np.full((n, 64), 0.5)


class Plane:
    """In the place of a fitted 2-d model whose flow halves every point."""

    class Scaler:
        mean, scale = np.zeros(2), np.ones(2)

        def forward(self, x):
            return x

    class Flow:
        def trajectories(self, x):
            return np.stack([x, 0.75 * x, 0.5 * x])

    standardizer_, flow_ = Scaler(), Flow()

    def sample(self, n, random_state=None):
        return np.random.default_rng(random_state).standard_normal((n, 2))


REAL = np.random.default_rng(0).random((50, 64))
POINTS = np.random.default_rng(1).standard_normal((200, 2))


def test_draws_a_picture(tmp_path):
    path = tmp_path / "demo.png"
    draw_demo(path, REAL, Digits(), POINTS, Plane(), seed=4)
    image = imread(path)
    assert image.shape[0] > 500
    assert image.shape[1] > 800
    left, right = image[:, : image.shape[1] // 2, :3], image[:, image.shape[1] // 2 :, :3]
    assert left.std() > 0.05
    assert right.std() > 0.05
    assert [p.name for p in tmp_path.iterdir()] == ["demo.png"]


def test_a_failure_leaves_the_old_picture(tmp_path):
    path = tmp_path / "demo.png"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="reshape"):
        draw_demo(path, REAL[:, :-1], Digits(), POINTS, Plane(), seed=4)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["demo.png"]


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot write"):
        draw_demo(tmp_path / "no" / "demo.png", REAL, Digits(), POINTS, Plane(), seed=4)


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    def missing(module):
        raise ImportError(f"No module named {module!r}")

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"matplotlib.* pip install 'otflow\[plot\]'"):
        draw_demo(tmp_path / "demo.png", REAL, Digits(), POINTS, Plane(), seed=4)


def test_importing_reports_needs_no_matplotlib():
    """All of otflow imported afresh, and forgotten again."""
    with mock.patch.dict(sys.modules):
        for name in list(sys.modules):
            if name.split(".")[0] in ("otflow", "matplotlib"):
                del sys.modules[name]
        assert importlib.import_module("otflow.report").draw_demo is not draw_demo
        assert "otflow.estimator.estimator" in sys.modules
        assert "matplotlib" not in sys.modules
    assert sys.modules["otflow.report"].draw_demo is draw_demo
