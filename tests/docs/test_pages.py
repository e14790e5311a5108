"""Every Python block of the README and the docs runs, in order, in a fresh folder.

Those of `pages.MEASURED` are in test_measured_pages.
"""

from tests.docs.pages import MEASURED, PAGES, ROOT, blocks, each_page, run_blocks


@each_page([page for page in PAGES if page not in MEASURED and blocks(page)])
def test_python_blocks_run(page, tmp_path, monkeypatch):
    run_blocks(page, tmp_path, monkeypatch)


def test_the_readme_has_code_to_run():
    assert blocks(ROOT / "README.md")
