"""The pages with Python in them, and how their blocks run.

A worker of pytest takes a module, so the pages have two: those about a flow's optimality and about
running it elsewhere share a small model and the certificate's programs, all others the README's.
"""

import re
from pathlib import Path

import jax
import pytest

from otflow.studies import advice, alpha

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")  # of a page
MEASURED = [
    ROOT / "docs" / f"{name}.md"
    for name in (
        "alpha",
        "certificates",
        "cli",
        "parallel",
        "reading-a-certificate",
        "report",
        "speed",
        "studies",
    )
]


def each_page(pages):
    """Parametrises a test."""
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page):
    """The Python of a page, block by block."""
    return _BLOCK.findall(page.read_text())


def run_blocks(page, folder, monkeypatch):
    """Every block in order, in `folder`; JAX's settings are then what they were."""
    before = {name: getattr(jax.config, name) for name in _SETTINGS}
    monkeypatch.chdir(folder)
    namespace: dict = {}
    try:
        for block in blocks(page):
            exec(compile(block, str(page), "exec"), namespace)
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def no_members_train(monkeypatch):
    """Flows of a study and of `advise_alpha` stay where they start."""
    for module in (advice, alpha):
        monkeypatch.setattr(module, "train_members", lambda flows, *args, **kwargs: list(flows))
