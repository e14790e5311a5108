"""What a certificate is: labelled lines, an error budget, and what was found wrong."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from otflow.support.html import number, table, within
from otflow.support.jsontext import plain
from otflow.support.text import text_table

ESTIMATED = "estimated"
EXCESS = ("excess transport", "excess price")  # lines that bound what is too much, by their names
_WIDE = 140  # characters of a line where all is told


def proved(confidence: float) -> str:
    """The label of a line that holds up to sampling: "proved (95 %)"."""
    return f"proved ({100 * confidence:g} %)"


@dataclasses.dataclass(frozen=True)
class Line:
    """One statement of a certificate.

    Attributes:
        name: what is stated, in a few words.
        value: the figure; NaN where it could not be had, and then the explanation says why.
        interval: bounds of the true figure at the line's confidence, an end None where there is no
            bound on that side; None for a figure without any.
        label: "proved (95 %)", that is up to sampling, or "estimated".
        unit: of value and interval.
        explanation: what the line means and assumes.
    """

    name: str
    value: float
    interval: tuple[float | None, float | None] | None
    label: str
    unit: str
    explanation: str

    @property
    def texts(self) -> tuple[str, str, str, str]:
        """Name, value, interval and label, for tables."""
        return self.name, *_written(self.value, self.interval), self.label


@dataclasses.dataclass(frozen=True)
class BudgetItem:
    """One source of error, in the units of J_alpha, and the knob that reduces it.

    `value` is NaN where the source cannot be told apart from the others.
    """

    name: str
    value: float
    knob: str


OPTIMAL, DENSITY = "optimal", "density"  # what findings deny


class Finding(str):
    """What is wrong or unproved, a sentence; `denies` is OPTIMAL, DENSITY or nothing."""

    denies: str

    def __new__(cls, text: str, denies: str = "") -> "Finding":
        found = super().__new__(cls, text)
        found.denies = denies
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return Finding, (str(self), self.denies)


@dataclasses.dataclass(frozen=True)
class Certificate:
    """How optimal a flow is: 1/2 W2^2(rho0, T#rho0) lies in [lower, upper] (SPEC 6).

    Attributes:
        lower, upper: the bracket, squared units of the space the flow was trained in.
        confidence: of the bracket, and of every line labelled proved, each by itself.
        lines: the labelled statements, the bracket first.
        budget: sources of error of J_alpha; empty where alpha is not known.
        findings: what is wrong or unproved; empty for a clean flow.
        invalid: rows at which the flow is not invertible.
        checked: rows at which that was checked.
        n: rows behind `upper`.
        dim: d.
        space: the space of all figures.
        seconds: what the certificate took.
    """

    lower: float
    upper: float
    confidence: float
    lines: tuple[Line, ...]
    budget: tuple[BudgetItem, ...]
    findings: tuple[Finding, ...]
    invalid: int
    checked: int
    n: int
    dim: int
    space: str
    seconds: float

    @property
    def relative_width(self) -> float:
        """(upper - lower) / upper: how far from optimal the transport can be at most."""
        return (self.upper - self.lower) / self.upper if self.upper > 0 else 0.0

    @property
    def largest_error(self) -> BudgetItem | None:
        """The largest known item of the budget; None without a budget."""
        known = [item for item in self.budget if math.isfinite(item.value)]
        return max(known, key=lambda item: item.value, default=None)

    def denial(self, what: str) -> Finding | None:
        """The first finding that denies it: OPTIMAL or DENSITY."""
        return next((finding for finding in self.findings if finding.denies == what), None)

    def line(self, name: str) -> Line:
        """The line of that name.

        Raises:
            KeyError: there is none; the message lists the names.
        """
        return line_of(self.lines, name)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dictionaries; NaN and infinity as None (JSON)."""
        largest = self.largest_error
        found = dataclasses.asdict(self) | {
            "relative_width": self.relative_width,
            "largest_error": None if largest is None else largest.name,
            "denied": [finding.denies for finding in self.findings],
        }
        return plain(found)

    @classmethod
    def from_dict(cls, found: Any) -> "Certificate":
        """The certificate that `to_dict` wrote; unknown numbers are NaN.

        Raises:
            ValueError: something else.
        """
        try:
            values = {f.name: found[f.name] for f in dataclasses.fields(cls)}
            for name in ("lower", "upper"):
                values[name] = _number(values[name])
            values["lines"] = tuple(
                Line(**{**line, "value": _number(line["value"]), "interval": _ends(line)})
                for line in values["lines"]
            )
            values["budget"] = tuple(
                BudgetItem(**{**item, "value": _number(item["value"])}) for item in values["budget"]
            )
            told = zip(values["findings"], found["denied"], strict=True)
            values["findings"] = tuple(Finding(str(text), str(what)) for text, what in told)
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"certificate: expected what to_dict writes; got {error!r}."
            ) from error

    @property
    def answers(self) -> tuple[tuple[str, str], ...]:
        """Five questions that people ask, each with its answer."""
        from otflow.certificates.answers import answers

        return answers(self)

    @property
    def title(self) -> str:
        """What was certified."""
        return f"Certificate: d = {self.dim}, {self.n:,} rows, in {self.space}"

    def full(self) -> str:
        """Answers, findings, every line and the error budget as text."""
        header = ("what", "value", "interval", "label", "meaning")
        rows = [(*x.texts, f"{x.explanation} [{x.unit}]") for x in self.lines]
        parts = [str(self), text_table("All lines", header, rows, _WIDE)]
        if self.budget:
            most = self.largest_error
            items = [
                (x.name + " (largest)" * (x == most), number(x.value), x.knob) for x in self.budget
            ]
            title = "Error budget of J_alpha, squared units of that space"
            parts.append(text_table(title, ("source", "size", "to reduce it"), items, _WIDE))
        return "\n\n".join(parts)

    def __str__(self) -> str:
        """The answers as a table, and the findings."""
        told = [f"- {text}" for text in self.findings or ("Nothing was found wrong.",)]
        return "\n".join([text_table(self.title, (), self.answers), "", "Findings:", *told])

    def _repr_html_(self) -> str:
        """Answers, findings and the lines as tables, for notebooks."""
        rows = [(x.name, number(x.value), x.label, x.unit) for x in self.lines]
        bracket = f"[{number(self.lower)}, {number(self.upper)}]"
        title = (
            f"Certificate: 1/2 W2^2 in {bracket}, d = {self.dim}, {self.n} rows, in {self.space}"
        )
        found = table("Findings", (), [("-", text) for text in self.findings or ("none",)])
        first = table(self.title, (), self.answers) + found
        return first + table(title, ("what", "value", "label", "unit"), rows)


def line_of(lines: Iterable[Line], name: str) -> Line:
    """The line of that name.

    Raises:
        KeyError: there is none; the message lists the names.
    """
    found = {line.name: line for line in lines}
    if name not in found:
        raise KeyError(f"expected one of {list(found)}; got {name!r}.")
    return found[name]


def _written(value: float, ends: tuple[float | None, float | None] | None) -> tuple[str, str]:
    """A value and its interval in words, which is empty where there is none."""
    low, high = ends or (None, None)
    if low is not None and high is not None:
        told, *both = within(value, low, high)
        return told, " .. ".join(both)
    side = f">= {number(low)}" if high is None else f"<= {number(high)}"
    return number(value), "" if ends is None else side


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _ends(line: dict[str, Any]) -> tuple[float | None, float | None] | None:
    """The interval of a line in JSON."""
    if line["interval"] is None:
        return None
    low, high = line["interval"]
    return (None if low is None else float(low), None if high is None else float(high))
