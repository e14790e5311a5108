"""What reports say, against computing it another way; pages and figures of the same content."""

import dataclasses
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go
import pytest

from otflow.certificates import Certificate
from otflow.datasets import toy
from otflow.report import carried, model_document, save_figures, study_document, write_page
from otflow.report.carried import carry, principal
from otflow.report.content import Bars, Images, Section, Words
from otflow.report.figures import draw
from otflow.report.model_report import _row_section
from otflow.report.page import page
from otflow.report.plots import figure
from otflow.report.row_panels import straightness
from otflow.studies.problems import make_problem
from otflow.support.html import plus_minus
from otflow.support.statistics import Z95
from tests.report.documents import (
    ALPHAS,
    CERTIFICATE,
    HOSTILE,
    alpha_folder,
    alpha_store,
    framed,
    model,
    pixels,
    plane,
    table,
)

ROWS = toy("moons", 2048, 2)  # more than are drawn
VOID = {"meta", "input", "br", "img", "link", "hr"}


@pytest.fixture(autouse=True, scope="module")
def _few_samples():
    """As many samples as rows are drawn, 2,000 instead of 5,000: programs of one shape."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carried, "SAMPLES", carried.DRAWN)
        yield


@pytest.fixture(scope="module")
def flat():
    return model_document(
        plane(),
        framed(ROWS),
        name="<m>",
        data_name=HOSTILE,
        certificate=CERTIFICATE,
        truth=1.0,
    )


@pytest.fixture(scope="module")
def square():
    return model_document(pixels(), table(250, 16, seed=1), image=(4, 4))


@pytest.fixture(scope="module")
def study():
    return study_document(alpha_folder())


def scored(fitted, rows):
    """Log-density of the rows, repeated to a batch of the density's grid."""
    return fitted._scores(np.resize(rows, (4096, 2)), None)[: len(rows)]


def facts(document, key):
    return {row[0]: row[1] for row in document.panel(key).rows}


class TestNumbers:
    def test_rows_against_the_estimator(self, flat):
        rows = facts(flat, "rows")
        scores = scored(plane(), ROWS)
        mean, error = -scores.mean(), Z95 * scores.std(ddof=1) / math.sqrt(2048)
        assert rows["nll"] == f"{plus_minus(mean, error)} nats (95 %)"
        z = plane().standardizer_.forward(ROWS)
        pushed = plane().flow_.push(z)
        assert float(rows["Transport"].split()[0]) == pytest.approx(
            np.asarray(pushed.transport).mean(), rel=1e-3
        )
        moved = ((np.asarray(pushed.points) - z) ** 2).sum(axis=1)
        share = (2 * np.asarray(pushed.transport) - moved).mean() / moved.mean()
        assert float(rows["Straightness"].split(", ")[1].split("%")[0]) == pytest.approx(
            100 * share, abs=0.02
        )

    def test_straightness_is_the_action_beyond_the_straight_line(self):
        """int |v - (T(x) - x)|^2 dt from the nodes: a step of Euler's has one speed."""
        found = carry(plane(), ROWS, 0)
        paths = np.asarray(plane().flow_.trajectories(found.z[:500]), float)
        speed = np.diff(paths, axis=0) * (len(paths) - 1)
        direct = ((speed - (paths[-1] - paths[0])) ** 2).sum(axis=2).mean(axis=0)
        np.testing.assert_allclose(found.straightness[:500], direct, atol=1e-4)
        assert direct.mean() > 5e-3

    def test_rows_without_a_density_are_left_out_and_counted(self):
        far = np.vstack([ROWS[:-2], [[1e39, 1e39], [-1e39, 0.0]]])
        found, all_rows = carry(plane(), far, 0), carry(plane(), ROWS, 0)
        assert (found.without, all_rows.without) == (2, 0)
        np.testing.assert_allclose(found.log_prob, all_rows.log_prob[:-2], rtol=1e-5)
        rows = dict(_row_section(plane(), found, "the data").panels[0].rows)
        assert rows["Rows"] == "2,046; 2 of 2,048 rows have no density and are left out everywhere"
        value = float(rows["nll"].split(" ± ")[0])
        assert value == pytest.approx(-all_rows.log_prob[:-2].mean(), rel=1e-3)
        with pytest.raises(ValueError, match="X: expected rows that have a density"):
            carry(plane(), np.full(ROWS.shape, 1e39), 0)

    def test_statistics_use_all_rows_and_plots_a_part(self, flat):
        assert len(flat.panel("samples").clouds[0].points) == 2000
        assert facts(flat, "rows")["Rows"] == "2,048"
        assert "plots show 2,000 of them, chosen at random with seed 0" in flat.summary
        again = model_document(plane(), framed(ROWS), seed=3).panel("samples").clouds[0].points
        assert not np.array_equal(flat.panel("samples").clouds[0].points, again)

    def test_density_is_that_of_the_model(self, flat):
        heat = flat.panel("density")
        density = math.exp(scored(plane(), np.array([[heat.x[45], heat.y[60]]]))[0])
        assert heat.values[60, 45] == pytest.approx(density)
        assert density > 0.01

    def test_moving_points_go_from_rows_to_their_images(self, flat):
        moving = flat.panel("paths")
        found = carry(plane(), ROWS, 0)
        start, end = moving.frames[0], moving.frames[-1]
        i = int(np.argmin(np.abs(found.z - start[5]).sum(axis=1)))
        np.testing.assert_allclose(start[5], found.z[i], atol=1e-5)
        np.testing.assert_allclose(end[5], found.y[i], atol=1e-5)
        assert moving.labels[0] == "t = 0.00"
        assert moving.labels[-1] == "t = 1.00"

    def test_straightness_of_a_known_bend(self):
        """Paths (t, t (1 - t)): they leave the line by t (1 - t), over the length 1."""

        class Bent:
            def trajectories(self, z):
                t = np.linspace(0, 1, 5)
                return z + np.stack([t, t * (1 - t)], axis=1)[:, None, :]

        class Model:
            flow_ = Bent()

        t, mean, most = straightness(Model(), np.zeros((7, 2)))
        np.testing.assert_allclose(mean, t * (1 - t), atol=1e-12)
        np.testing.assert_allclose(most, mean, atol=1e-12)

    def test_marginals_are_densities_and_the_worst_come_first(self, square):
        drawn = [p for p in square.panels if p.key.startswith("marginal")]
        assert len(drawn) == 6
        distances = [float(re.findall(r"0\.\d+", p.caption)[0]) for p in drawn]
        assert distances == sorted(distances, reverse=True)
        for curve in drawn[0].curves:
            width = curve.x[1] - curve.x[0]
            assert curve.y.sum() * width == pytest.approx(1.0, abs=0.01)

    def test_principal_directions(self):
        z = table(200, 5)
        _, singular, right = np.linalg.svd(z - z.mean(axis=0))
        found = principal(z)
        np.testing.assert_allclose(np.abs((found * right.T).sum(axis=0)), 1.0)
        spread = ((z - z.mean(axis=0)) @ found).var(axis=0, ddof=1)
        np.testing.assert_allclose(spread, singular**2 / 199)

    def test_images_are_the_rows(self, square):
        images = square.panel("images-data")
        assert isinstance(images, Images)
        x = table(250, 16, seed=1)
        found = carry(pixels(), x, 0)
        first = (x[found.drawn[0]] - x.min()) / (x.max() - x.min())
        np.testing.assert_allclose(images.images[0].ravel(), first)

    def test_losses_are_the_history(self, flat):
        panel = flat.panel("loss-nll")
        curves = {c.name: c for c in panel.curves}
        np.testing.assert_array_equal(curves["validation"].y, plane().history_["val_nll"])
        assert curves["weights kept"].x == [plane().n_iter_]

    def test_the_maps_of_a_study(self, study):
        """The Gaussian's exact maps, mu1 + (s / sigma) (x - mu0) along each axis (SPEC 2.1)."""
        moving = study.panel("maps")
        ladder = [f"alpha = {alpha:g}" for alpha in ALPHAS]
        assert moving.labels == ("identity", *ladder, "optimal map")
        x, sigma = moving.frames[0], np.array([0.5, 2.0])
        for alpha, frame in zip(ALPHAS, moving.frames[1:-1], strict=True):
            s = (sigma + np.sqrt(sigma**2 + 4 * alpha * (1 + alpha))) / (2 * (1 + alpha))
            expected = 0.5 / (1 + alpha) + s / sigma * (x - 0.5)
            np.testing.assert_allclose(frame, expected, atol=1e-9)
        np.testing.assert_allclose(moving.frames[-1], (x - 0.5) / sigma, atol=1e-9)

    def test_the_series_of_a_study(self, study):
        panel = study.panel("series-kl")
        named = {curve.role: curve for curve in panel.curves}
        exact = [make_problem("gaussian", 2).reference(a).kl for a in ALPHAS]
        np.testing.assert_allclose(named["exact"].y, exact)
        np.testing.assert_allclose(named["data"].y, exact)
        slope = np.polyfit(np.log(ALPHAS), np.log(exact), 1)[0]
        assert f"slope {slope:.2f}" in named["exact"].name
        assert "theory -2" in named["model"].name

    def test_the_certificate(self, flat):
        (interval,) = flat.panel("bracket").intervals
        assert (interval.low, interval.high, interval.truth) == (0.9, 1.1, 1.0)
        bars = flat.panel("budget")
        assert isinstance(bars, Bars)
        assert bars.names == ("penalty", "inverse")
        assert "raise alpha" in bars.caption
        assert flat.panel("lines").rows[2][2] == "<= 0.02"


class TestDrawing:
    @pytest.mark.parametrize("which", ["flat", "square", "study"])
    def test_plotly_knows_every_property(self, which, request):
        """Plotly's own classes refuse unknown names and wrong values."""
        for panel in request.getfixturevalue(which).panels:
            found = figure(panel)
            assert (found is None) == isinstance(panel, Words)
            if found is not None:
                text = re.sub(r'"@\w+"', '"#000000"', json.dumps(found))
                plain = json.loads(text)
                go.Figure(data=plain["data"], layout=plain["layout"])
                assert "NaN" not in text

    @pytest.mark.parametrize(
        "which", ["flat", *(pytest.param(k, marks=pytest.mark.slow) for k in ("square", "study"))]
    )
    def test_twins_are_not_clipped(self, which, request):
        """Every text that is shown lies within the figure; panels alike are drawn once."""
        from matplotlib.figure import Figure

        panels = [p for p in request.getfixturevalue(which).panels if not isinstance(p, Words)]
        unlike = {(re.sub(r"\d", "", p.key), len(p.title), len(p.caption)): p for p in panels}
        for panel in unlike.values():
            drawn = Figure(figsize=(5.2, 3.9), layout="constrained")
            draw(panel, drawn)
            drawn.draw_without_rendering()
            box = drawn.get_tightbbox()
            assert box.x0 >= -0.02, panel.key
            assert box.y0 >= -0.02, panel.key
            assert box.x1 <= 5.22, panel.key
            assert box.y1 <= 3.92, panel.key

    def test_both_draw_the_same_numbers(self, study):
        from matplotlib.figure import Figure

        panel = study.panel("series-kl")
        drawn = Figure()
        draw(panel, drawn)
        lines = drawn.axes[0].get_lines()
        traces = figure(panel)["data"]
        exact = next(c for c in panel.curves if c.role == "exact")
        assert any(np.allclose(line.get_ydata(), exact.y) for line in lines)
        np.testing.assert_allclose(traces[0]["y"], exact.y, rtol=1e-4)

    def test_files(self, study, tmp_path):
        panels = (study.panel("maps"), study.panel("series-kl"), Words("words", "", "", (), ()))
        part = dataclasses.replace(study, sections=(Section("", "", panels),))
        found = save_figures(part, tmp_path / "new")
        assert [p.name for p in found] == ["maps.pdf", "series-kl.pdf"]
        assert all(p.read_bytes().startswith(b"%PDF") for p in found)
        with pytest.raises(ValueError, match=r"suffix: expected one of \.pdf"):
            save_figures(study, tmp_path, ".gif")


class Checker(HTMLParser):
    """Raises where tags do not match; keeps tags and text outside scripts."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.ids, self.addresses = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.addresses += [v for k, v in given.items() if k in ("src", "href", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


class TestPage:
    @pytest.mark.parametrize("which", ["flat", "square", "study"])
    def test_well_formed_small_and_alone(self, which, request, tmp_path):
        write_page(request.getfixturevalue(which), tmp_path / "r.html")
        text = (tmp_path / "r.html").read_text()
        assert len(text.encode()) < 8e6
        checker = Checker()
        checker.feed(text)
        assert not checker.open
        assert checker.addresses == []
        assert len(checker.ids) == len(set(checker.ids))
        assert checker.tags.count("script") == 3
        assert [p.name for p in tmp_path.iterdir()] == ["r.html"]

    def test_hostile_names_stay_text(self, flat):
        text = page(flat)
        assert "<script>window.hurt" not in text
        assert "<img" not in text.split("<script>")[0]
        assert "&lt;/script&gt;&lt;script&gt;window.hurt" in text

    def test_axis_titles_are_escaped_for_plotly(self, flat):
        title = figure(flat.panel("density"))["layout"]["yaxis"]["title"]["text"]
        assert "<" not in title

    def test_without_plotly_the_extra_is_named(self, flat, monkeypatch):
        from otflow.support import extras

        def missing(module):
            raise ImportError(module)

        monkeypatch.setattr(extras.importlib, "import_module", missing)
        with pytest.raises(ImportError, match=r"pip install 'otflow\[report\]'"):
            page(flat)


class TestOtherInput:
    def test_without_rows(self):
        document = model_document(plane())
        assert facts(document, "rows")["Rows"] == "2,000 draws from the flow"
        assert "nothing here says whether it fits" in document.summary
        assert "samples" not in {panel.key for panel in document.panels}

    def test_one_column(self):
        document = model_document(model(table(100, 1)), table(100, 1, seed=1))
        assert {"target", "marginal-0"} <= {panel.key for panel in document.panels}
        page(document)

    def test_image_of_another_size(self):
        with pytest.raises(ValueError, match="image: expected height \\* width = 16; got 3 x 5"):
            model_document(pixels(), image=(3, 5))

    def test_problem_of_ones_own_has_no_maps(self, tmp_path):
        document = study_document(alpha_store(tmp_path / "s", "mine"))
        assert "maps" not in {panel.key for panel in document.panels}

    def test_certificate_survives_json(self):
        again = Certificate.from_dict(json.loads(json.dumps(CERTIFICATE.to_dict())))
        assert again.to_dict() == CERTIFICATE.to_dict()
        assert math.isnan(again.lines[1].value)
        with pytest.raises(ValueError, match="certificate: expected what to_dict writes"):
            Certificate.from_dict({"lower": 1.0})


class TestNotebook:
    def test_estimator_keeps_scikit_learns_diagram(self):
        from sklearn import config_context

        html = plane()._repr_html_()
        assert "sk-top-container" in html
        assert "Fitted flow" in html
        assert "<img src=x" not in html
        assert "Fitted flow" in plane()._repr_mimebundle_()["text/html"]
        with config_context(display="text"):
            assert not hasattr(plane(), "_repr_html_")

    def test_certificate(self):
        assert "[0.9, 1.1]" in CERTIFICATE._repr_html_()
        assert "paths are not straight" in CERTIFICATE._repr_html_()

    def test_study(self):
        from otflow.studies import load_study

        html = load_study(alpha_folder())._repr_html_()
        assert "KL falls like alpha^-2" in html
        assert html.count("<table") == 2
