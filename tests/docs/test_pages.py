"""Every Python block of the README and the docs runs, in order, in a fresh folder.

Those of `pages.MEASURED` are in test_measured_pages. Flows of the long guides are trained in slow
tests only.
"""

import pytest

from tests.docs.pages import MEASURED, PAGES, ROOT, blocks, each_page, run_blocks
from tests.fakes import no_plan, no_training

_LONG = (
    "between",
    "chain",
    "choosing",
    "comparing",
    "conditional",
    "data",
    "density",
    "single-cells",
)
# whose every block fits or compiles: what they show is tested in its own room
_FITS = ("extending", "growth", "jax", "posterior")
LONG = [ROOT / "docs" / f"{name}.md" for name in _LONG]
FITS = [ROOT / "docs" / f"{name}.md" for name in _FITS]
PYTHON = [page for page in PAGES if page not in MEASURED and blocks(page)]


@each_page([page for page in PYTHON if page not in LONG + FITS])
def test_python_blocks_run(page, tmp_path, monkeypatch):
    run_blocks(page, tmp_path, monkeypatch)


@pytest.mark.slow
@each_page(FITS)
def test_python_blocks_that_fit_run(page, tmp_path, monkeypatch):
    run_blocks(page, tmp_path, monkeypatch)


@pytest.mark.parametrize("trained", [False, pytest.param(True, marks=pytest.mark.slow)])
@each_page([page for page in PYTHON if page in LONG])
def test_python_blocks_of_guides_run(page, trained, tmp_path, monkeypatch):
    if not trained:
        no_training(monkeypatch)
        no_plan(monkeypatch)
    run_blocks(page, tmp_path, monkeypatch)


def test_the_readme_has_code_to_run():
    assert blocks(ROOT / "README.md")
