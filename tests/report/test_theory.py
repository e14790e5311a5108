"""The page of the whole theory: every statement of every study, unfinished ones too."""

import pytest

from otflow.report.content import Words
from otflow.report.theory import theory_document
from otflow.studies.result import Series, StudyResult
from otflow.studies.verdicts import Statement


def result(kind, *statements, cells=4, failed=()):
    series = [Series("kl", [1.0, 2.0], [0.1, 0.2], [0.01, 0.01])] if statements else []
    rows = [{"steps": 1.0}] if statements else []
    settings = {"kind": kind, "problem": "product", "dim": 2}
    return StudyResult(
        settings, ("steps",), rows, list(statements), series, "steps", cells, 4, list(failed)
    )


def test_every_statement_has_a_line_and_every_study_its_figures():
    found = theory_document(
        {
            "alpha": result("alpha", Statement("a", "holds", "1"), Statement("b", "violated", "2")),
            "density": result("density", Statement("c", "not resolved", "3")),
        }
    )
    table = found.panel("theory")
    assert isinstance(table, Words)
    assert [row[1:] for row in table.rows] == [
        ("a", "holds", "1"),
        ("b", "violated", "2"),
        ("c", "not resolved", "3"),
    ]
    keys = [panel.key for panel in found.panels]
    assert keys == [
        "theory",
        "alpha-series-kl",
        "alpha-numbers",
        "density-series-kl",
        "density-numbers",
    ]
    assert "product, d = 2" in found.summary


def test_what_is_missing_is_said():
    found = theory_document({"width": result("width", cells=1, failed=[("x", "diverged")])})
    ((_, _, verdict, evidence),) = found.panel("theory").rows
    assert (verdict, evidence) == (
        "not resolved",
        "nothing to tell yet: 1 of 4 cells are finished.",
    )
    assert found.sections[1].text == "1 of 4 cells are finished. 1 cells failed."


def test_nothing_is_refused():
    with pytest.raises(ValueError, match=r"^results: expected at least one study"):
        theory_document({})
