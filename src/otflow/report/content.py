"""What a report shows, as numbers and words; `plots` and `figures` draw the same content.

A document is sections of panels. Colours are named by role, so that each drawing, theme and print
can choose its own.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from otflow.support.html import within

Role = Literal["data", "model", "target", "other", "exact"]
Mark = Literal["points", "line", "dashes", "both", "bars"]


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """What every panel has.

    Attributes:
        key: its name in the page and in file names: letters, digits and hyphens.
        title: one line.
        caption: what is seen, in plain words.
    """

    key: str
    title: str
    caption: str


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """y against x. `error` is the half-width of a 95 % interval, NaN where there is none."""

    name: str
    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    role: Role
    mark: Mark = "line"
    error: Float[np.ndarray, " n"] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Curves(Panel):
    """Curves in one pair of axes, each linear or logarithmic."""

    curves: tuple[Curve, ...]
    x_name: str
    y_name: str
    log_x: bool = False
    log_y: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Cloud:
    """Points of the plane."""

    name: str
    points: Float[np.ndarray, "n 2"]
    role: Role


@dataclasses.dataclass(frozen=True, eq=False)
class Scatter(Panel):
    """Clouds of points in one pair of axes.

    Attributes:
        one_scale: the same on both axes.
        window: the corners (low, high) of what is shown; None shows every point.
    """

    clouds: tuple[Cloud, ...]
    x_name: str
    y_name: str
    one_scale: bool = True
    window: Float[np.ndarray, "2 2"] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Heat(Panel):
    """A function on a grid, shown by colour, with a cloud on top.

    Attributes:
        x, y: of the columns and rows of the grid.
        values: at (y, x).
        value_name: what they are, with its unit.
    """

    x: Float[np.ndarray, " k"]
    y: Float[np.ndarray, " l"]
    values: Float[np.ndarray, "l k"]
    value_name: str
    cloud: Cloud
    x_name: str
    y_name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Moving(Panel):
    """Points that a slider moves from frame to frame.

    Attributes:
        frames: positions, a frame each.
        labels: what the slider reads at each frame.
        slider: what the slider is, in a few words.
        start: the frame shown first.
        moving: name and role of the points; its points are those of the frame `start`.
        still: clouds that stay.
        paths: lines that stay.
    """

    frames: Float[np.ndarray, "f n 2"]
    labels: tuple[str, ...]
    slider: str
    start: int
    moving: Cloud
    still: tuple[Cloud, ...]
    paths: tuple[Float[np.ndarray, "k 2"], ...]
    x_name: str
    y_name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Images(Panel):
    """Grey images of one size, from 0 (paper) to 1 (ink)."""

    images: Float[np.ndarray, "n height width"]


@dataclasses.dataclass(frozen=True, eq=False)
class Interval:
    """A bracket [low, high] on a line; `truth` where it is known."""

    name: str
    low: float
    high: float
    truth: float | None = None

    @property
    def ends(self) -> tuple[str, str]:
        """Both ends as texts."""
        _, low, high = within(self.low, self.low, self.high)
        return low, high


@dataclasses.dataclass(frozen=True, eq=False)
class Brackets(Panel):
    """Intervals above one another on one axis."""

    intervals: tuple[Interval, ...]
    x_name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Bars(Panel):
    """Named sizes >= 0, the largest picked out; NaN is shown as unknown."""

    names: tuple[str, ...]
    values: Float[np.ndarray, " n"]
    x_name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Words(Panel):
    """A table of texts.

    Attributes:
        header: names of the columns; empty where the first column names the rows.
        rows: of as many texts.
        wide: numbers in many columns, which scroll on a narrow screen; else cells stack there.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    wide: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Section:
    """Panels under a heading, after a few sentences."""

    title: str
    text: str
    panels: tuple[Panel, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Document:
    """A report.

    Attributes:
        title: of the page.
        summary: one or two sentences under it.
        sections: in order.
        footer: how it was made.
    """

    title: str
    summary: str
    sections: tuple[Section, ...]
    footer: str

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, in order."""
        return tuple(panel for section in self.sections for panel in section.panels)

    def panel(self, key: str) -> Panel:
        """The panel of that key.

        Raises:
            KeyError: there is none; the message lists the keys.
        """
        for panel in self.panels:
            if panel.key == key:
                return panel
        raise KeyError(f"expected one of {[panel.key for panel in self.panels]}; got {key!r}.")


def legend(panel: Panel) -> Sequence[tuple[str, Role, Mark]]:
    """What the panel's colours and marks mean."""
    if isinstance(panel, Curves):
        return [(c.name, c.role, c.mark) for c in panel.curves]
    if isinstance(panel, Scatter):
        return [(c.name, c.role, "points") for c in panel.clouds]
    if isinstance(panel, Heat):
        return [(panel.cloud.name, panel.cloud.role, "points")]
    if isinstance(panel, Moving):
        return [(c.name, c.role, "points") for c in (*panel.still, panel.moving)]
    if isinstance(panel, Brackets):
        found: list[tuple[str, Role, Mark]] = [("bracket", "model", "line")]
        if any(i.truth is not None for i in panel.intervals):
            found.append(("exact value", "exact", "points"))
        return found
    return []
