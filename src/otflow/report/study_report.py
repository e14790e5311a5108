"""The report of a study, as content, from its folder: verdicts, rates, and maps that move."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

import otflow
from otflow.report.content import Curve, Curves, Document, Panel, Section, Words
from otflow.report.figures import save_panels
from otflow.report.study_maps import moving_maps
from otflow.report.symbols import in_symbols
from otflow.studies.result import Series, StudyResult
from otflow.studies.runner import summarise
from otflow.studies.store import Store
from otflow.support.statistics import Z95

THEORY = "What the theory promises"
RULE = (
    "A statement holds or is violated only where the whole 95 % interval says so; else it is not "
    "resolved."
)
_TITLES = {
    "kl": ("KL to the target", "nats"),
    "value_gap": ("½ W₂² − J", "squared units"),
    "ot_error": ("Distance to the optimal map, rms", "units"),
    "limit_error": ("|transport + 2 α KL − ½ W₂²|", "squared units"),
    "sd": (in_symbols("Standard deviation of J_N"), "squared units"),
    "loss_gap": (in_symbols("J(theta*) - J_N(theta_N)"), "squared units"),
    "population_gap": (in_symbols("J(theta_N) - J(theta*)"), "squared units"),
    "integral": ("Integral of the density", ""),
    "flow_error": ("Distance to the gradient flow, rms", "units"),
    "nll_error": ("Mean error of the nll", "nats"),
}


def study_document(
    folder: str | Path,
    X: Float[np.ndarray, "n d"] | None = None,
    *,
    name: str = "",
    seed: int = 0,
) -> Document:
    """What a study's folder holds, finished or not.

    Args:
        folder: of the study; it is only read.
        X: the rows of a study of data, as they were given to it: for the maps that move.
        name: of the study, in words; by default the folder's.
        seed: of the points that move.

    Raises:
        FileNotFoundError, ValueError: no study there, a damaged one, or one without results.
    """
    with Store.read(folder) as store:
        result = summarise(store.settings, store.cells(), None)
        if not result.rows:
            failed = f"; {len(result.failed)} cells failed" if result.failed else ""
            raise ValueError(f"{folder}: expected a study with results; got none{failed}.")
        moving, why = moving_maps(store, X, seed)
    kind = result.settings["kind"]
    sections = [_theory(result), _series(result)]
    if kind == "alpha":
        text = why or (
            "Every flow takes the same points; from alpha to alpha they approach optimal transport."
        )
        sections.append(Section("The maps", text, () if moving is None else (moving,)))
    sections.append(_numbers(result))
    problem, d = result.settings["problem"], result.settings["dim"]
    return Document(
        f"{kind.capitalize()} study: {name or Path(folder).name}",
        f"Problem {problem}, d = {d}: {result.cells} finished cells.",
        tuple(s for s in sections if s.panels or s.text),
        f"Made by otflow {otflow.__version__}; seed {seed}.",
    )


def _theory(result: StudyResult) -> Section:
    rows = tuple(
        (in_symbols(s.claim), s.verdict, in_symbols(s.evidence)) for s in result.statements
    )
    header = ("statement", "verdict", "evidence")
    return Section(THEORY, RULE, (Words("theory", "", "", header, rows),))


def _series(result: StudyResult) -> Section:
    text = "Both axes are logarithmic where a power law is expected: its slope is the exponent."
    return Section("Measured", text, series_panels(result))


def series_panels(result: StudyResult) -> tuple[Panel, ...]:
    """One panel a series: means with 95 % intervals, exact values, fitted slope."""
    return tuple(
        _panel(series, series.x_name or result.x_name) for series in result.series if series.x
    )


def _panel(series: Series, x_name: str) -> Curves:
    x = np.array(series.x)
    title, unit = _TITLES.get(series.name, (series.name, ""))
    error = Z95 * np.array(series.standard_error)
    curves = []
    if series.exact is not None and np.isfinite(series.exact).any():
        told = in_symbols("alpha p_eff / (2N)") if series.name == "loss_gap" else "exact"
        if series.exact_slope is not None:
            told += f", slope {series.exact_slope:.2f} over the same alphas"
        curves.append(Curve(told, x, np.array(series.exact), "exact"))
    if series.slope is not None and math.isfinite(series.slope):
        line = np.exp((series.intercept or 0.0) + series.slope * np.log(x))
        told = f"fit, slope {series.slope:.2f} (theory {series.expected:g})"
        curves.append(Curve(told, x, line, "model", "dashes"))
    curves.append(Curve("measured", x, np.array(series.mean), "data", "points", error))
    caption = "Points: means over replicates with 95 % intervals."
    if series.expected is not None:
        caption += f" The theory's slope, in the limit, is {series.expected:g}."
    logarithmic = series.expected is not None
    if logarithmic and not any(np.any(curve.y > 0) for curve in curves):
        logarithmic = False
        caption += " No value is positive, so the vertical axis is linear."
    key = "".join(c if c.isalnum() else "-" for c in series.name)
    return Curves(f"series-{key}", title, caption, tuple(curves), x_name, unit, True, logarithmic)


def numbers_panel(result: StudyResult) -> Words:
    """The table."""
    header = tuple(column.replace("_", " ") for column in result.columns)
    return Words("numbers", "Table", "± is a 95 % interval.", header, tuple(result.texts()), True)


def _numbers(result: StudyResult) -> Section:
    panels = [numbers_panel(result)]
    if result.failed:
        header = ("cell", "error")
        panels.append(Words("failed", "Failed cells", "", header, tuple(result.failed)))
    settings = tuple((k.replace("_", " "), in_words(v)) for k, v in result.settings.items())
    panels.append(Words("settings", "Settings", "", (), settings))
    text = "A cell is one flow or one measurement: one value of what is varied, with one seed."
    return Section("Numbers and settings", text, tuple(panels))


def in_words(value: Any) -> str:
    """A setting as people write it: no brackets, quotes, None or True."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "; ".join(f"{str(k).replace('_', ' ')} {in_words(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(in_words, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def draw_study(result: StudyResult, path: str | Path) -> None:
    """One log-log panel a series: means with 95 % intervals, exact values, fitted slope.

    Args:
        result: of any study with at least one finished row.
        path: file to write; .png, .pdf or .svg.

    Raises:
        ValueError: there is nothing to draw yet.
    """
    panels = series_panels(result)
    if not panels:
        raise ValueError("result: expected at least one finished row to draw; got none.")
    save_panels(panels, path)
