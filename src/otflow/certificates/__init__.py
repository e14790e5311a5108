"""Certificates: how optimal a trained flow is, measured from outside (SPEC 6)."""

from otflow.certificates.bracket import Bracket, bracket_pairs
from otflow.certificates.certificate import BudgetItem, Certificate, Line
from otflow.certificates.certify import certify, certify_model
from otflow.certificates.conditional import certify_conditional
from otflow.certificates.fitting import DualConfig
from otflow.certificates.unbalanced import certify_growth

__all__ = [
    "Bracket",
    "BudgetItem",
    "Certificate",
    "DualConfig",
    "Line",
    "bracket_pairs",
    "certify",
    "certify_conditional",
    "certify_growth",
    "certify_model",
]
