"""A certificate as a section: the bracket on a line, the budget as bars, all lines as a table."""

import math

import numpy as np

from otflow.certificates import Certificate
from otflow.certificates.certificate import ESTIMATED
from otflow.report.content import Bars, Brackets, Interval, Panel, Section, Words
from otflow.report.symbols import in_symbols
from otflow.support.html import number


def certificate_section(certificate: Certificate, truth: float | None = None) -> Section:
    """The section of a certificate.

    Args:
        certificate: what `certify_model` found.
        truth: 1/2 W2^2 in the space of the flow, where it is known.
    """
    found = certificate.findings or ("Nothing was found wrong.",)
    numbered = tuple((str(i), in_symbols(text)) for i, text in enumerate(found, 1))
    answers = tuple((what, in_symbols(told)) for what, told in certificate.answers)
    panels: list[Panel] = [
        Words("answers", "In five lines", "", (), answers),
        Words("findings", "Findings", "", (), numbered),
    ]
    if math.isfinite(certificate.lower) and math.isfinite(certificate.upper):
        panels.append(_bracket(certificate, truth))
    panels.append(_lines(certificate))
    if certificate.budget:
        panels += [_bars(certificate), _knobs(certificate)]
    text = (
        f"How optimal the flow is, measured from outside on {certificate.n:,} rows in "
        f"{certificate.space}; each proved line holds with {certificate.confidence:.0%} confidence."
    )
    return Section("Certificate", text, tuple(panels))


def _bracket(certificate: Certificate, truth: float | None) -> Brackets:
    intervals = (Interval("½ W₂²", certificate.lower, certificate.upper, truth),)
    caption = (
        "Half the squared Wasserstein distance between the data and where the flow takes it lies "
        "between these ends: above the left one by a dual potential, below the right one because "
        f"the flow itself is a coupling. Width: {certificate.relative_width:.1%} of the upper end."
    )
    if certificate.lines and certificate.lines[0].label == ESTIMATED:
        caption += " Both ends are estimated: the first line below says why."
    if truth is not None:
        caption += f" The cross is the exact value, {number(truth)}."
    return Brackets("bracket", "Bracket of the transport cost", caption, intervals, "squared units")


def _lines(certificate: Certificate) -> Words:
    header = ("what", "value", "interval", "label", "meaning")
    rows = tuple(
        (in_symbols(name), value, interval, label, f"{in_symbols(x.explanation)} [{x.unit}]")
        for x in certificate.lines
        for name, value, interval, label in [x.texts]
    )
    return Words("lines", "All lines", "", header, rows)


def _bars(certificate: Certificate) -> Bars:
    largest = certificate.largest_error
    told = "" if largest is None else f" The largest is {largest.name}: {largest.knob}."
    return Bars(
        "budget",
        "Error budget",
        in_symbols("Where J_alpha loses, in its own units.") + told,
        tuple(item.name for item in certificate.budget),
        np.array([item.value for item in certificate.budget]),
        "squared units",
    )


def _knobs(certificate: Certificate) -> Words:
    rows = tuple((i.name, number(i.value), i.knob) for i in certificate.budget)
    return Words("knobs", "To reduce it", "", ("source", "size", "what to do"), rows)
