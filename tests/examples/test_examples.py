"""The scripts of the gallery run, in their quick form, and draw."""

import runpy
import sys
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
# other tests and pages are shorter
LONG = {"sample_limit", "alpha_limit", "cells", "digits", "funnel", "growth", "jko", "patches"}
NEEDS_DATA = {"gas_turbine", "single_cell"}  # from elsewhere, see their first lines


@pytest.fixture(autouse=True)
def no_display(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    matplotlib.use("agg")
    yield
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(s, id=s.stem, marks=[pytest.mark.slow] if s.stem in LONG else [])
        for s in SCRIPTS
        if s.stem not in NEEDS_DATA
    ],
)
def test_draws(script, tmp_path, monkeypatch):
    picture = tmp_path / "picture.png"
    monkeypatch.setattr(sys, "argv", [script.name, "--quick", "--out", str(picture)])
    runpy.run_path(str(script), run_name="__main__")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.stem)
def test_is_short_and_in_the_gallery(script):
    assert len(script.read_text().splitlines()) <= 80
    page = (ROOT / "docs" / "gallery.md").read_text()
    assert f"examples/{script.name}" in page
    assert f"gallery/{script.stem}.png" in page


def test_pictures_are_small():
    sizes = {p.name: p.stat().st_size for p in (ROOT / "docs" / "gallery").glob("*.png")}
    assert set(sizes) == {f"{s.stem}.png" for s in SCRIPTS}
    assert max(sizes.values()) < 150_000
    assert sum(sizes.values()) < 1_500_000
