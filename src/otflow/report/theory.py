"""The theory on one page: every statement of every study, with its verdict and its figure."""

import dataclasses
from collections.abc import Mapping

import otflow
from otflow.report.content import Document, Section, Words
from otflow.report.study_report import RULE, THEORY, numbers_panel, series_panels
from otflow.report.symbols import in_symbols
from otflow.studies.result import StudyResult

_LIMITS = {
    "alpha": "Gamma-convergence and compactness: alpha to infinity",
    "samples": "The loss and its minimisers: N to infinity",
    "width": "The bound of a class of networks",
    "steps": "The time steps",
    "density": "The density is one",
    "jko": "The JKO scheme: tau to zero",
    "growth": "Transport with growth",
}


def theory_document(results: Mapping[str, StudyResult]) -> Document:
    """The summaries of studies of one problem, by their kinds.

    A study without a finished cell, or with unfinished ones, says so.

    Raises:
        ValueError: no study.
    """
    if not results:
        raise ValueError("results: expected at least one study; got none.")
    settings = next(iter(results.values())).settings
    rows, sections = [], []
    for kind, result in results.items():
        limit = _LIMITS.get(kind, kind)
        partial = result.planned is not None and result.cells < result.planned
        told = f"{result.cells} of {result.planned} cells are finished." if partial else ""
        for s in result.statements:
            rows.append((limit, in_symbols(s.claim), s.verdict, in_symbols(s.evidence)))
        if not result.statements:
            rows.append((limit, "", "not resolved", f"nothing to tell yet: {told}"))
        told += f" {len(result.failed)} cells failed." if result.failed else ""
        panels = [*series_panels(result), *([numbers_panel(result)] if result.rows else [])]
        named = (dataclasses.replace(panel, key=f"{kind}-{panel.key}") for panel in panels)
        sections.append(Section(limit, told, tuple(named)))
    header = ("limit", "statement", "verdict", "evidence")
    words = Words("theory", "", "", header, tuple(rows))
    return Document(
        "The theory, measured",
        f"Problem {settings['problem']}, d = {settings['dim']}.",
        (Section(THEORY, RULE, (words,)), *sections),
        f"Made by otflow {otflow.__version__}.",
    )
