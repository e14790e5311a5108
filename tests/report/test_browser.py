"""Reports in headless Chromium: no errors, no requests, sliders that move, layouts that hold."""

import functools
import shutil

import numpy as np
import pytest

from otflow.datasets import toy
from otflow.report import model_document, study_document, write_page
from tests.report.documents import CERTIFICATE, HOSTILE, alpha_folder, framed, pixels, plane, table

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
BOXES = """() => [...document.querySelectorAll('figure')].map((figure) => {
  const box = figure.getBoundingClientRect();
  return [box.left, box.top, box.right, box.bottom];
})"""
MOVE = """([id, value]) => {
  const slider = document.getElementById('slider-' + id);
  slider.value = value;
  slider.dispatchEvent(new Event('input'));
}"""
DATA = "id => document.getElementById('plot-' + id).data.map((t) => [t.x, t.y])"

if CHROMIUM is None:
    pytest.skip("needs Chromium (apt-get install chromium)", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")


def plane_document():
    named = {"name": HOSTILE, "data_name": HOSTILE}
    rows = framed(toy("moons", 300, 2))
    return model_document(plane(), rows, **named, certificate=CERTIFICATE, truth=1.0)


MAKE = {
    "plane": plane_document,
    "pixels": lambda: model_document(pixels(), table(250, 16, seed=1), image=(4, 4)),
    "study": lambda: study_document(alpha_folder(), name="small"),
}


@functools.cache
def document(name):
    """One of `MAKE`, made where a test looks at it."""
    return MAKE[name]()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The file of a document."""
    folder = tmp_path_factory.mktemp("pages")

    @functools.cache
    def write(name):
        write_page(document(name), folder / f"{name}.html")
        return folder / f"{name}.html"

    return write


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def visit(browser, written):
    """Open a page; afterwards nothing was asked of a network and nothing was complained of."""
    requests, complaints, pages = [], [], []

    def opened(name, width=1400, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        pages.append(page)
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.route("**/*", lambda route: _local(route))
        page.goto(written(name).as_uri())
        page.wait_for_function(
            "() => [...document.querySelectorAll('.plot')].every((p) => p.querySelector('svg'))"
        )
        return page

    yield opened
    for page in pages:
        page.close()
    assert complaints == []
    assert requests
    assert all(url.startswith(("file://", "data:", "blob:")) for url in requests)


def _local(route):
    if route.request.url.startswith("file://"):
        route.continue_()
    else:
        route.abort()


@pytest.mark.parametrize(
    "name", ["plane", *(pytest.param(p, marks=pytest.mark.slow) for p in ("pixels", "study"))]
)
@pytest.mark.parametrize(
    ("width", "scheme"), [pytest.param(1400, "light", marks=pytest.mark.slow), (400, "dark")]
)
def test_layout(visit, name, width, scheme):
    """Nothing is wider than the window and no figure covers another."""
    page = visit(name, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.evaluate(BOXES)
    assert len(boxes) == len(document(name).panels)
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0
        assert right <= width
        assert right - left > 100
        for other in boxes[i + 1 :]:
            assert (
                other[0] >= right - 0.5
                or other[2] <= left + 0.5
                or other[1] >= bottom - 0.5
                or other[3] <= top + 0.5
            )
    inside = page.evaluate(
        "() => [...document.querySelectorAll('.plot .main-svg')].every((s) => "
        "s.getBoundingClientRect().right <= s.closest('.plot').getBoundingClientRect().right + 1)"
    )
    assert inside


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("plane", "paths"),
        pytest.param("pixels", "paths", marks=pytest.mark.slow),
        pytest.param("study", "maps", marks=pytest.mark.slow),
    ],
)
def test_sliders_move_the_points(visit, name, key):
    page = visit(name)
    panel = document(name).panel(key)
    before = page.evaluate(DATA, key)
    for frame in (len(panel.frames) - 1, 1):
        page.evaluate(MOVE, [key, frame])
        after = page.evaluate(DATA, key)
        assert after[:-1] == before[:-1]
        np.testing.assert_allclose(np.array(after[-1]).T, panel.frames[frame], rtol=1e-4, atol=1e-9)
        assert page.inner_text(f"#label-{key}") == panel.labels[frame]
    assert after[-1] != before[-1]
    drawn = f"#plot-{key} .scatterlayer .trace:last-child .point"
    assert page.locator(drawn).count() == panel.frames.shape[1]


@pytest.mark.slow
def test_the_keyboard_moves_a_slider(visit):
    page = visit("study")
    page.focus("#slider-maps")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#label-maps") == document("study").panel("maps").labels[1]


@pytest.mark.slow
def test_a_hostile_name_does_nothing(visit):
    page = visit("plane")
    assert page.evaluate("window.hurt") is None
    assert HOSTILE in page.inner_text("h1")
    assert page.locator("img").count() == 0
    assert page.locator("#plot-density .ytitle").text_content() == HOSTILE[:31] + "..."


@pytest.mark.slow
def test_dark_follows_the_reader_and_keeps_the_slider(visit):
    page = visit("study")
    page.evaluate(MOVE, ["maps", 2])
    moved = page.evaluate(DATA, "maps")
    colour = "document.getElementById('plot-maps').layout.font.color"
    light, paper = page.evaluate(colour), "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"() => {colour} !== '{light}'")
    assert page.evaluate(paper) == "rgb(20, 23, 26)"
    assert page.evaluate(DATA, "maps") == moved


@pytest.mark.slow
def test_prints_without_sliders(visit):
    page = visit("study", scheme="dark")
    page.emulate_media(media="print")
    assert not page.locator(".slider").is_visible()
    assert "Printed at: identity" in page.inner_text(".print-only")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf().startswith(b"%PDF")


@pytest.mark.slow
def test_every_plot_has_words_for_those_who_do_not_see_it(visit):
    page = visit("plane")
    labels = page.eval_on_selector_all(
        ".plot", "all => all.map((p) => p.getAttribute('aria-label'))"
    )
    assert labels
    assert all(len(label) > 20 for label in labels)
    assert page.locator("input[type=range]").get_attribute("aria-valuetext") == "t = 0.00"
