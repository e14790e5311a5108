"""Is a fit good? What was measured of it on rows it has not seen, and the answer in words."""

import dataclasses
import math
from typing import Any

from otflow.certificates.calibration import Coverage
from otflow.certificates.course import Course
from otflow.certificates.two_sample import TwoSample
from otflow.support.html import number, table
from otflow.support.jsontext import plain
from otflow.support.statistics import lacking
from otflow.support.text import text_table

_P_VALUE = 0.01
_ROUND_TRIP = 0.01  # standard deviations of the flow's space


@dataclasses.dataclass(frozen=True)
class Compared:
    """A simple density on the same rows.

    Attributes:
        name: "Gaussian" or "Gaussian mixture".
        nll: its mean -log density, nats, in the data's units; NaN where there is none.
        gain: by how much the flow's nll is lower, nats.
        interval: of the gain, 95 %, from paired differences.
        told: how it was fitted, or why it is missing.
    """

    name: str
    nll: float
    gain: float
    interval: tuple[float, float]
    told: str

    @property
    def verdict(self) -> str:
        """ "better", "worse" or "not resolved", of the flow; "unknown" without the baseline."""
        low, high = self.interval
        if math.isnan(self.gain):
            return "unknown"
        return "better" if low > 0 else "worse" if high < 0 else "not resolved"


@dataclasses.dataclass(frozen=True)
class Summary:
    """How good a fit is, on n rows that it was not trained on.

    Attributes:
        n, dim: rows and columns.
        nll: mean -log density of the rows that have one, nats, in the data's own units.
        nll_interval: of it, 95 %.
        nll_standardised: the same in the space the flow was trained in.
        without_density: rows that have none: outside the bounds, or where the map gives no number.
        compared: the baselines, on the same rows.
        coverage: shares of the rows in the flow's regions of highest density.
        test: rows against draws from the flow, maximum mean discrepancy.
        worst_column: the one whose own distribution is off most.
        worst_p_value: Kolmogorov and Smirnov's of that column, times the number of columns.
        bend: E int |v - (T(x) - x)|^2 dt over E|T(x) - x|^2: 0 where paths are straight.
        round_trip: largest |x - T^-1(T(x))|, in the space the flow was trained in.
        integral: of the density, in words.
        course: how training ended.
        findings: what is wrong or not shown, one sentence each; empty where nothing was found.
        seconds: what the summary took.
    """

    n: int
    dim: int
    nll: float
    nll_interval: tuple[float, float]
    nll_standardised: float
    without_density: int
    compared: tuple[Compared, ...]
    coverage: tuple[Coverage, ...]
    test: TwoSample
    worst_column: str
    worst_p_value: float
    bend: float
    round_trip: float
    integral: str
    course: Course
    findings: tuple[str, ...]
    seconds: float

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        best = min(
            (x for x in self.compared if not math.isnan(x.gain)),
            key=lambda x: x.gain,
            default=None,
        )
        if best is None:
            told = "no baseline to compare with"
        elif best.verdict == "not resolved":
            told = f"not resolved whether it is better than a {best.name}"
        else:
            size = f"{abs(best.gain):.2f} nats a row"
            told = f"{best.verdict} than a {best.name} by {size}"
            if best.verdict == "better" and all(x.verdict == "better" for x in self.compared):
                told = f"better than both baselines, by {size} or more"
        if not self.findings:
            return f"Good as far as {self.n:,} rows show: {told}, and nothing was found wrong."
        many = len(self.findings)
        return f"{'1 finding' if many == 1 else f'{many} findings, worst first'}; {told}."

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """What, figure, and what it means: the table that every face of a summary shows."""
        low, high = self.nll_interval
        told = f"in the data's units; {number(self.nll_standardised)} standardised"
        found = [("held-out nll", f"{_interval(self.nll, (low, high), 2)} nats", told)]
        for x in self.compared:
            nll = f"{x.nll:.2f} nats" if math.isfinite(x.nll) else "unknown"
            gain = f"flow {x.verdict}: {_gained(x)}; " if math.isfinite(x.gain) else ""
            found.append((f"nll of a {x.name}", nll, gain + x.told))
        for c in self.coverage:
            share = f"{100 * c.share:.1f} % [{100 * c.interval[0]:.1f}, {100 * c.interval[1]:.1f}]"
            kept = "calibrated" if c.consistent else "not calibrated"
            what = f"rows in the flow's {c.level:.0%} region"
            found.append((what, share, f"{kept} at 99 % confidence"))
        trip = "largest |x - T^-1(T(x))|, standardised"
        found += [
            ("rows against samples", f"p = {self.test.p_value:.3g}", "two-sample test (MMD)"),
            (
                f"worst column: {self.worst_column}",
                f"p = {self.worst_p_value:.3g}",
                "Kolmogorov-Smirnov, times the columns",
            ),
            ("bend of the paths", f"{self.bend:.2%}", "of E|T(x)-x|^2; 0 % where straight"),
            ("round trip", number(self.round_trip), trip),
            ("integral of the density", self.integral.partition(":")[0], _after(self.integral)),
            ("training", f"step {self.course.kept} kept of {self.course.last}", _ended(self)),
        ]
        if self.without_density:
            found.append(("left out", lacking(self.without_density, self.n), "of every nll above"))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dictionaries; NaN and infinity as None (JSON)."""
        found = dataclasses.asdict(self) | {"verdict": self.verdict}
        found["compared"] = [vars(x) | {"verdict": x.verdict} for x in self.compared]
        found["coverage"] = [c._asdict() | {"consistent": c.consistent} for c in self.coverage]
        found["test"] = self.test._asdict()
        return plain(found)

    def __str__(self) -> str:
        lines = [self.verdict, *(f"- {text}." for text in self.findings)]
        title = f"Summary on {self.n:,} rows, {self.dim} column{'s' if self.dim > 1 else ''}"
        return "\n".join([*lines, text_table(title, (), self.rows)])

    def _repr_html_(self) -> str:
        """The verdict, the findings and the table, for notebooks."""
        found = table(self.verdict, (), [("-", text) for text in self.findings])
        return found + table(f"Summary on {self.n:,} rows", (), self.rows)


def findings(
    summary: Summary, doubt: str | None, quirks: tuple[str, ...], above_columns: float = _P_VALUE
) -> tuple[str, ...]:
    """One sentence for everything that is wrong or not shown, the worst first.

    Columns come before what is compared: a density of rounded ones may put a spike on every value,
    and then the baseline's with the sharper spikes wins.

    Args:
        summary: measured, its findings empty.
        doubt: what is known against the density's integral.
        quirks: of the columns.
        above_columns: p-value below which a test counts.
    """
    found = list(quirks) if doubt is None else [doubt.rstrip("."), *quirks]
    if summary.without_density:
        found.append(lacking(summary.without_density, summary.n))
    for x in summary.compared:
        if x.verdict == "worse":
            found.append(f"worse than a {x.name} on these rows, by {-x.gain:.2f} nats a row")
        elif x.verdict == "not resolved":
            ends = _interval(x.gain, x.interval, 2)
            found.append(f"a {x.name} may do as well: the flow's gain is {ends} nats a row")
    for c in summary.coverage:
        if not c.consistent:
            side = "narrow" if c.share < c.level else "wide"
            found.append(
                f"not calibrated, too {side}: {c.share:.1%} of the rows lie in its "
                f"{c.level:.0%} region"
            )
    if summary.test.p_value < above_columns:
        told = f"p = {summary.test.p_value:.2g}"
        found.append(f"rows and samples from the flow differ (two-sample test, {told})")
    if summary.worst_p_value < above_columns:
        p = f"p = {summary.worst_p_value:.2g}"
        found.append(f"the distribution of column {summary.worst_column} is off ({p})")
    if not summary.round_trip <= _ROUND_TRIP:
        told = f"{summary.round_trip:.2g} standard deviations"
        found.append(f"the inverse misses by up to {told}: use dtype='float64'")
    return (*found, *summary.course.findings())


def _interval(value: float, ends: tuple[float, float], digits: int) -> str:
    if not all(map(math.isfinite, (value, *ends))):
        return number(value)
    return f"{value:.{digits}f} [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"


def _gained(x: Compared) -> str:
    """By how much the flow's nll is lower, or higher where it is no better."""
    low, high = x.interval
    if x.gain >= 0:
        return f"lower by {_interval(x.gain, (low, high), 3)}"
    return f"higher by {_interval(-x.gain, (-high, -low), 3)}"


def _after(text: str) -> str:
    return text.partition(":")[2].strip()


def _ended(summary: Summary) -> str:
    course = summary.course
    told = {"max_iter": "all steps were taken", "early_stopping": "stopped early"}
    ended = told.get(course.status, course.status)
    if course.status != "max_iter" or math.isnan(course.slope):
        return ended
    return f"{ended}; nll {course.slope:+.2g} nats per 1,000 steps at the end"
