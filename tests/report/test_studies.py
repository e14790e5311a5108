"""Figures of studies, whatever numbers they hold."""

import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from otflow.report import figures
from otflow.report.study_report import draw_study, series_panels
from otflow.studies.result import Series, StudyResult

INF, NAN = math.inf, math.nan


def result(*series):
    return StudyResult({}, (), [], [], list(series), "alpha", 0, None, [])


def power(name="kl", **changes):
    series = {
        "x": [1.0, 10.0, 100.0],
        "mean": [1.0, 0.1, 0.01],
        "standard_error": [0.1, 0.01, 0.001],
        "exact": [1.0, 0.1, 0.01],
        "slope": -1.0,
        "intercept": 0.0,
        "expected": -1.0,
    }
    return Series(name, **(series | changes))


def draw(tmp_path, *series):
    """The picture as grey values, and that there is nothing beside it."""
    path = tmp_path / "study.png"
    draw_study(result(*series), path)
    assert [p.name for p in tmp_path.iterdir()] == ["study.png"]
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.convert("L").copy()


def dark(image):
    return sum(image.histogram()[:200])


@pytest.mark.parametrize(
    ("k", "shape"),
    [(1, (1, 1)), (2, (2, 1)), (3, (3, 1)), pytest.param(4, (2, 2), marks=pytest.mark.slow)],
)
def test_a_panel_a_series(tmp_path, k, shape):
    image = draw(tmp_path, *(power(f"s{i}") for i in range(k)))
    columns, lines = shape
    assert image.size == (round(columns * 624), round(lines * 468))


def test_points_lines_and_fit_are_drawn(tmp_path):
    whole = dark(draw(tmp_path, power()))
    bare = dark(draw(tmp_path, power(exact=None, slope=None, intercept=None)))
    assert whole > bare + 200


def test_empty_series_are_left_out(tmp_path):
    empty = power(x=[], mean=[], standard_error=[], exact=[], slope=None, intercept=None)
    assert draw(tmp_path, empty, power()).size == draw(tmp_path, power()).size
    for none in ((), (empty,)):
        with pytest.raises(ValueError, match=r"^result: expected at least one finished row"):
            draw_study(result(*none), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


NUMBERS = [
    {"mean": [1.0, 0.0, -0.5]},
    {"mean": [1.0, INF, NAN], "standard_error": [0.1, NAN, NAN]},
    {"mean": [INF, INF, INF], "standard_error": [INF, INF, NAN]},
    {"mean": [-1.0, -2.0, 0.0]},
    {"standard_error": [0.0, 5.0, INF]},
    {"exact": [0.0, -1.0, 1.0]},
    {"exact": [NAN, NAN, NAN]},
    {"exact": [0.0, 0.0, 0.0], "mean": [0.0, 0.0, 0.0]},
    {"exact": [INF, 1.0, NAN]},
    {"slope": NAN, "intercept": NAN},
    {"slope": -400.0},
]
any_numbers = pytest.mark.parametrize("changes", NUMBERS, ids=str)
either_scale = pytest.mark.parametrize("expected", [None, -1.0], ids=["linear", "logarithmic"])


def series(changes, expected):
    fit = {"slope": None, "intercept": None} if expected is None else {}
    return power(expected=expected, **(changes | fit))


@either_scale
@any_numbers
def test_any_numbers(expected, changes):
    """Warnings are errors here; what cannot be drawn is left out. Drawn, but not laid out."""
    (panel,) = series_panels(result(series(changes, expected)))
    figure = Figure(figsize=(5.2, 3.9), dpi=120)
    figures.draw(panel, figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert dark(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("L")) > 500


@pytest.mark.slow
@either_scale
@any_numbers
def test_any_numbers_in_a_file(tmp_path, expected, changes):
    assert dark(draw(tmp_path, series(changes, expected))) > 500


def test_one_point(tmp_path):
    one = {"x": [10.0], "mean": [0.5], "standard_error": [NAN], "exact": [0.4]}
    draw(tmp_path, power(**one, slope=None, intercept=None))


def test_a_failure_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "study.png"
    path.write_bytes(b"old")

    def fails(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fails)
    with pytest.raises(OSError, match="disk full"):
        draw_study(result(power()), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["study.png"]


def test_settings_are_told_in_words():
    from otflow.report.study_report import in_words

    setting = {"kind": "Network", "width_of": 8, "steps": (1, 2.5), "beta": None, "quick": True}
    assert in_words(setting) == "kind Network; width of 8; steps 1, 2.5; beta none; quick yes"
    assert in_words([]) == "none"
