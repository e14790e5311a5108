"""The figure of a study, from its summary alone."""

from pathlib import Path

from otflow.report.figures import save_panels
from otflow.report.study_report import series_panels
from otflow.studies.result import StudyResult


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
