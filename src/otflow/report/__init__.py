"""Figures and pages, drawn from fitted models and saved results only."""

from otflow.report.content import Document
from otflow.report.demo import draw_demo
from otflow.report.figures import save_figures
from otflow.report.model_report import model_document
from otflow.report.page import write_page
from otflow.report.study_report import study_document

__all__ = [
    "Document",
    "draw_demo",
    "model_document",
    "save_figures",
    "study_document",
    "write_page",
]
