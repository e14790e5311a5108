"""Figures, drawn from fitted models and saved results only."""

from otflow.report.demo import draw_demo

__all__ = ["draw_demo"]
