"""The documentation site builds strictly, renders what was written, and needs no network."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
# What a page fetches by itself, by tag; links that a reader may click are not among them.
FETCHED = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "object": "data",
    "video": "src",
    "audio": "src",
}
HTML = re.compile(
    "html|head|meta|link|title|style|script|body|header|nav|main|aside|footer|article|section|div|"
    "span|p|a|ul|ol|li|h[1-6]|table|thead|tbody|tr|th|td|col|colgroup|pre|code|em|strong|b|i|sub|"
    "sup|br|hr|img|svg|path|form|input|label|button|template|dialog|blockquote|dl|dt|dd|details|"
    "small|summary|abbr|figure|noscript|kbd|rect|g|circle|iframe"
)


class Page(HTMLParser):
    """The tags, identifiers, links and requests of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.requests = set(), set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.add(tag)
        self.ids.update(found[key] for key in ("id", "name") if found.get(key))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if found.get(FETCHED.get(tag, "")):
            self.requests.append(found[FETCHED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


@pytest.fixture(scope="module")
def pages(site):
    folder, _ = site
    return {path: Page(path.read_text()) for path in sorted(folder.rglob("*.html"))}


def test_one_version_everywhere(site):
    import otflow

    version = re.escape(otflow.__version__)
    for name, pattern in (
        ("src/otflow/__init__.py", rf'^__version__ = "{version}"$'),
        ("CITATION.cff", rf"^version: {version}$"),
        ("docs/bibliography.md", rf"version = \{{{version}\}}"),
    ):
        assert re.search(pattern, (ROOT / name).read_text(), re.MULTILINE), name
    assert f"otflow {otflow.__version__}" in (site[0] / "index.html").read_text()


def test_builds_without_warnings(site):
    assert not re.search(r"^(WARNING|ERROR)", site[1], re.MULTILINE), site[1]


def test_every_source_page_is_built(site, pages):
    sources = {p.relative_to(ROOT / "docs").with_suffix("") for p in (ROOT / "docs").rglob("*.md")}
    built = {p.relative_to(site[0]).with_suffix("") for p in pages}
    assert sources <= built


def test_nothing_is_fetched_from_elsewhere(site, pages):
    outside = {url for page in pages.values() for url in page.requests if "//" in url}
    assert not outside
    for style in site[0].rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text()), style


def test_links_and_requests_resolve(pages):
    missing = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are absolute, for a server
            continue
        for link in page.links + page.requests:
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = unquote(link).partition("#")
            goal = (path.parent / name).resolve() if name else path
            anchors = pages[goal].ids if goal in pages else {anchor}
            if not goal.exists() or (anchor and anchor not in anchors):
                missing.append((path.name, link))
    assert not missing


def test_mathematics_is_not_taken_for_markup(pages):
    """<x, T(x)> would vanish as a tag; two J*_alpha in a paragraph would become emphasis."""
    unknown = {
        (path.name, tag)
        for path, page in pages.items()
        for tag in page.tags
        if not HTML.fullmatch(tag)
    }
    assert not unknown
    emphasised = re.compile(r"J<em>|W<em>|[A-Za-z]<em>_")
    assert not [path.name for path in pages if emphasised.search(path.read_text())]


def test_the_search_works_from_a_file(site):
    assert (site[0] / "search" / "search_index.js").stat().st_size > 10_000
    assert (site[0] / "assets" / "iframe-worker.js").exists()


def test_the_api_documents_what_is_public(pages):
    import otflow

    known = {name for page in pages.values() for name in page.ids}
    for name in ("OTFlow", "load", "Flow", "Conforming", "RK4", "GaussianMixture", "use_all_cores"):
        found = getattr(otflow, name)
        assert {f"{m}.{name}" for m in (found.__module__, otflow._NAMES[name])} & known, name
    for module in ("potentials", "schemes", "reference", "certificates", "datasets", "training"):
        for name in getattr(otflow, module).__all__:
            if name.isupper() and name != "RK4":
                continue  # a constant
            own = f"otflow.{module}.{name}"  # or in a module of the same name
            assert {own, f"{own}.{name}"} & known, name
    for name in otflow.studies.__all__:
        assert any(k.startswith("otflow.studies.") and k.endswith(f".{name}") for k in known), name
