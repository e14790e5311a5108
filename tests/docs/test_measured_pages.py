"""The Python blocks of the pages on certificates, studies, reports, the command line, processes.

Flows of the studies are trained in slow tests only; the quick ones run the same blocks on the flows
that training starts from. tests/studies train them.
"""

import re

import pytest

from tests.docs.pages import MEASURED, PAGES, each_page, no_members_train, run_blocks

LABORATORY = [page for page in MEASURED if page.stem in ("alpha", "studies")]
LONG = [page for page in MEASURED if page.stem in ("certificates", "report")]


@each_page([page for page in MEASURED if page not in LABORATORY + LONG])
def test_python_blocks_run(page, tmp_path, monkeypatch):
    run_blocks(page, tmp_path, monkeypatch)


@pytest.mark.slow
@each_page(LONG)
def test_python_blocks_of_long_pages_run(page, tmp_path, monkeypatch):
    run_blocks(page, tmp_path, monkeypatch)


@pytest.mark.parametrize("trained", [False, pytest.param(True, marks=pytest.mark.slow)])
@each_page(LABORATORY)
def test_python_blocks_of_studies_run(page, trained, tmp_path, monkeypatch):
    if not trained:
        no_members_train(monkeypatch)
    run_blocks(page, tmp_path, monkeypatch)


@each_page(PAGES)
def test_relative_links_exist(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing
