"""Columns one by one and in pairs, against counting and against a relation that was made."""

import numpy as np

from otflow.data.preprocessing import ColumnMap
from otflow.report.column_panels import framed, marginal_panels, on_axes, pair_panels
from otflow.report.content import Cloud
from otflow.report.plots import figure

NAMES = ("a", "b", "c", "d")


def rows(n, seed):
    """b is a curve of a, without correlation; c is rounded to halves; d is by itself."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(n)
    b = a**2 + 0.1 * rng.standard_normal(n)
    return np.column_stack([a, b, np.rint(2 * rng.standard_normal(n)) / 2, rng.uniform(size=n)])


def test_dependent_columns_come_first_and_in_their_own_units():
    x = rows(1000, 0)
    panels = pair_panels(x, rows(500, 1), ColumnMap.identity(4), NAMES, "rows")
    assert panels[0].key == "pair-0-1"
    assert (panels[0].x_name, panels[0].y_name) == ("a", "b")
    assert not panels[0].one_scale
    np.testing.assert_array_equal(panels[0].clouds[0].points, x[:, :2])
    assert len(panels) == 4


def test_columns_with_tails_are_drawn_as_they_are_mapped():
    """Logarithms to an end, arcsinh as fitted; counts, shares and plain columns in their units."""
    lower, upper = (0.0, 2.0, None, None, -0.5, 0.0, None), (None, None, 5.0, None, None, 1.0, None)
    tails = (None, None, None, (1.0, 2.0), None, None, None)
    chart = ColumnMap(lower, upper, (0.0,) * 4 + (1.0, 0.0, 0.0), tails)
    rng = np.random.default_rng(0)
    far = np.exp(5 * rng.standard_normal((500, 4)))
    x = np.column_stack([far * [1e-15, 1, -1, 1] + [0, 2, 5, 0], rng.poisson(3, 500),
                         rng.uniform(size=500), rng.standard_normal(500)])  # fmt: skip
    mapped = [np.log(x[:, 0]), np.log(x[:, 1] - 2), -np.log(5 - x[:, 2]),
              np.arcsinh((x[:, 3] - 1) / 2)]  # fmt: skip
    panels = {p.key: p for p in marginal_panels(x, x[:400], chart, tuple("abcdefg"), "rows")}
    told = ["log(a)", "log(b - 2)", "-log(5 - c)", "arcsinh((d - 1) / 2)", "e", "f", "g"]
    assert all(p.x_name == told[int(key[-1])] for key, p in panels.items())
    assert panels["marginal-0"].title == "Column a"
    (pair,) = pair_panels(x[:, :2], x[:400, :2], ColumnMap(lower[:2], upper[:2], (0.0, 0.0)),
                          ("a", "b"), "rows")  # fmt: skip
    np.testing.assert_allclose(pair.clouds[0].points, np.column_stack(mapped[:2]))
    np.testing.assert_allclose(on_axes(x, chart), np.column_stack([*mapped, x[:, 4:]]))


def test_small_units_have_a_frame_of_their_size():
    points = 1e-15 * np.random.default_rng(0).standard_normal((500, 2))
    panel = framed("key", "title", "", [Cloud("rows", points, "data")], ("x", "y"), alike=True)
    assert np.ptp(panel.window, axis=0).max() < 1e-14


def test_rounded_columns_are_bars_at_their_values():
    chart = ColumnMap((None,) * 4, (None,) * 4, (0.0, 0.0, 0.5, 0.0))
    x, noise = rows(1000, 0), np.random.default_rng(2)
    found = {p.key: p for p in marginal_panels(chart.dequantize(x, noise), x, chart, NAMES, "r")}
    data, drawn = found["marginal-2"].curves
    assert data.mark == drawn.mark == "bars"
    assert figure(found["marginal-2"])["data"][0]["type"] == "bar"
    share = [(x[:, 2] == value).mean() / 0.5 for value in data.x]
    np.testing.assert_allclose(data.y, share)
    np.testing.assert_allclose(drawn.y, share)
    assert found["marginal-0"].curves[0].mark == "line"


def test_a_rounded_column_of_many_values_is_shown_in_groups_of_whole_cells():
    chart = ColumnMap((None,), (None,), (0.1,))
    x = np.arange(1000)[:, None] / 10
    (panel,) = marginal_panels(x, x, chart, ("a",), "rows")
    y = panel.curves[0].y
    assert len(y) <= 40
    np.testing.assert_allclose(y[:-1], y[0])  # no comb


def test_what_lies_outside_the_frame_is_counted():
    points = np.random.default_rng(0).standard_normal((1000, 2))
    far = np.vstack([points, [[50.0, 0.0]]])
    clouds = [Cloud("rows", points, "data"), Cloud("samples", far, "model")]
    panel = framed("key", "title", "Told.", clouds, ("x", "y"), alike=True)
    assert panel.window[1, 0] < 10
    outside = (np.abs(far - panel.window.mean(axis=0)) > np.diff(panel.window, axis=0) / 2).any(1)
    assert f"{outside.sum()} (samples)" in panel.caption
    assert figure(panel)["layout"]["xaxis"]["range"][1] < 10
