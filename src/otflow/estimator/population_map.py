"""A fitted map between two populations: rows, labels, certificates, files."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from otflow.certificates import Certificate, certify_conditional, certify_model
from otflow.certificates.lines import test_lines
from otflow.certificates.two_sample import mmd, sliced_w2
from otflow.data.conditions import refuse_condition
from otflow.estimator.estimator import OTFlow
from otflow.estimator.loading import load
from otflow.reference import discrete
from otflow.support.checks import check_count, check_rows, check_share
from otflow.support.extras import require
from otflow.support.frames import check_names, names_of
from otflow.support.html import number, table

_TEST_ROWS = 800  # a side of a two-sample test


@dataclasses.dataclass(frozen=True, eq=False)
class Carried:
    """Labels of one population for rows of the other.

    Attributes:
        labels: of every row the one with the largest share, shape (m,).
        shares: of every label among the rows nearest to each, shape (m, number of
            classes); they sum to 1.
        classes: the labels behind the columns of `shares`, sorted.
    """

    labels: np.ndarray
    shares: Float[np.ndarray, "m l"]
    classes: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Between:
    """A map from one population to another and back; see `transport_between`.

    `model` is the fitted flow. It is trained in a common scale, the data shifted and divided by one
    number, so that straight lines and optimality mean the same there as in the data's units. A map
    under a condition needs one, (n, k) or (k,) for all rows, in every method; `given` fixes it.
    `certificate` is the one that `certified` found, None before.
    """

    model: OTFlow
    certificate: Certificate | None = None

    def transform(self, X: Any, condition: Any = None) -> Float[np.ndarray, "n d"]:
        """Rows of the first population carried to the second, (n, d), the data's units."""
        rows = self._rows("X", X)
        return self.model.standardizer_.inverse(self.model.model_.forward(rows, condition))

    def inverse_transform(self, Y: Any, condition: Any = None) -> Float[np.ndarray, "n d"]:
        """Rows of the second population carried back to the first, (n, d)."""
        rows = self.model.standardizer_.forward(self._rows("Y", Y))
        return np.asarray(self.model.inverse_transform(rows, condition))

    def interpolate(self, X: Any, t: float, condition: Any = None) -> Float[np.ndarray, "n d"]:
        """(1 - t) x + t T(x), (n, d): rows on the straight way, t in [0, 1].

        Where T is optimal that is the displacement interpolation, the shortest path of laws.
        """
        check_share("t", t)
        rows = self._rows("X", X)
        return (1 - t) * rows + t * self.transform(rows, condition)

    def carry_labels(
        self,
        X: Any,
        labels: Any,
        Y: Any,
        condition_x: Any = None,
        condition_y: Any = None,
        neighbours: int = 15,
    ) -> Carried:
        """Labels of rows of X for rows of Y: those of the carried rows T(x) that are nearest.

        With a condition "nearest" counts it too, its columns on the scale of the rows.

        Args:
            X: (n, d) rows of the first population.
            labels: (n,) texts or integers.
            Y: (m, d) rows of the second.
            condition_x, condition_y: (n, k) and (m, k), of a map under a condition.
            neighbours: carried rows that vote for a row, all alike; at most n do.

        Raises:
            ValueError, TypeError: rows or labels of other shapes.
            ImportError: scikit-learn is missing.
        """
        ends, rows = self._meeting(X, Y, condition_x, condition_y)
        return _vote(ends, labels, rows, neighbours)

    def fates(
        self,
        X: Any,
        Y: Any,
        labels: Any,
        condition_x: Any = None,
        condition_y: Any = None,
        neighbours: int = 15,
    ) -> Carried:
        """Labels of rows of Y for rows of X: those of the rows nearest to where T carries x.

        Args:
            As in `carry_labels`, but `labels` are of Y, (m,).

        Raises:
            ValueError, TypeError: rows or labels of other shapes.
            ImportError: scikit-learn is missing.
        """
        ends, rows = self._meeting(X, Y, condition_x, condition_y)
        return _vote(rows, labels, ends, neighbours)

    def w2(self, X: Any, Y: Any, most: int = 1000, seed: int = 0, condition: Any = None) -> float:
        """W2 between T(X) and Y, both held out, by `sample_w2`; a condition is that of X."""
        return sample_w2(self.transform(X, condition), self._rows("Y", Y), most, seed)

    def certify(
        self,
        X: Any,
        Y: Any = None,
        condition_x: Any = None,
        condition_y: Any = None,
        **options: Any,
    ) -> Certificate:
        """How optimal the map is, and whether T(X) and Y have one law.

        The bracket is of 1/2 W2^2(X's law, law of T(X)), under a condition of its mean over the
        conditions of X (`given(c).certify` of rows of one c is for that c): it says nothing about
        Y. That T(X) has the law of Y, and not only that of the density fitted to Y, is what the
        added lines test; with conditions they compare rows and conditions together.

        Args:
            X: (n, d) held-out rows of the first population, n >= 40.
            Y: (m, d) held-out rows of the second; None leaves the lines out.
            condition_x, condition_y: (n, k) and (m, k), of a map under a condition.
            options: of `otflow.certificates.certify`, or `certify_conditional`.
        """
        options = {"space": "the common scale of both populations"} | options
        if self.model.n_conditions_:
            found = certify_conditional(self.model, X, condition_x, **options)
        else:
            refuse_condition(condition_x, "condition_x")
            found = certify_model(self.model, X, **options)
        if Y is None:
            return found
        seed = options.get("seed", 0)
        ends, held = self._meeting(X, Y, condition_x, condition_y, least=20)
        ends, held = _as_many(ends, held, _TEST_ROWS, seed)
        beside = " with their conditions" if self.model.n_conditions_ else ""
        tests = {
            f"T(X) against Y{beside}, MMD": mmd(ends, held, seed=seed),
            f"T(X) against Y{beside}, sliced W2": sliced_w2(ends, held, seed=seed),
        }
        return dataclasses.replace(found, lines=(*found.lines, *test_lines(tests, len(ends))))

    def certified(self, X: Any, Y: Any = None, *given: Any, **options: Any) -> "Between":
        """The map with the certificate that `certify` finds, which it then shows."""
        return dataclasses.replace(self, certificate=self.certify(X, Y, *given, **options))

    def given(self, condition: Any) -> "Between":
        """The map under one condition (k,), without a certificate.

        Raises:
            ValueError: the map is not conditional, or another shape.
        """
        return Between(self.model.given(condition))

    def _rows(self, name: str, rows: Any, least: int = 1) -> Float[np.ndarray, "n d"]:
        """Rows of either population: of the model's columns, in their order."""
        check_names(name, rows, self.model.model_.columns)
        return check_rows(name, rows, self.model.flow_.dim, least)

    def _meeting(
        self, X: Any, Y: Any, condition_x: Any, condition_y: Any, least: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where rows of X are carried, and rows of Y, each beside its condition."""
        ends = self._beside("X", self.transform(X, condition_x), condition_x)
        return ends, self._beside("Y", self._rows("Y", Y, least), condition_y)

    def _beside(
        self, name: str, rows: Float[np.ndarray, "n d"], condition: Any
    ) -> Float[np.ndarray, "n dk"]:
        """Rows in the common scale, and beside each its condition on the scale the flow knows."""
        z = self.model.standardizer_.forward(rows)
        c = self.model.model_.scaled_condition(condition, len(rows), f"condition_{name.lower()}")
        return z if c is None else np.column_stack([z, c])

    def save(self, path: str | Path) -> None:
        """Write the map to one model file without code; a certificate is no part of it."""
        self.model.save(path)

    @staticmethod
    def load(path: str | Path) -> "Between":
        """The map that `save` wrote.

        Raises:
            FileNotFoundError, ValueError: as `otflow.load`; or the model's columns are scaled one
                by one, as those of a plain `OTFlow` are.
        """
        model = load(path)
        if np.ptp(model.standardizer_.scale) > 0:
            raise ValueError(f"{path}: expected one scale for all columns; got several.")
        return Between(model)

    def _facts(self) -> list[tuple[str, str]]:
        flow = self.model.flow_
        found = [("columns", ", ".join(self.model.columns_)), ("steps", str(flow.scheme.n_steps))]
        if flow.condition_dim:
            names = self.model.condition_names_ or [f"c{j}" for j in range(flow.condition_dim)]
            found.append(("condition", ", ".join(names)))
        found.append(("density of the second", type(flow.target).__name__))
        known = self.certificate
        if known is None:
            return [*found, ("certificate", "none: `certified` on held-out rows finds one")]
        bracket = f"[{number(known.lower)}, {number(known.upper)}]"
        told = f"1/2 W2^2 in {bracket}, {known.confidence:.0%}, in {known.space}"
        return [*found, ("certificate", told), *(("found", text) for text in known.findings)]

    def __repr__(self) -> str:
        return f"Between({'; '.join(f'{name}: {text}' for name, text in self._facts())})"

    def _repr_html_(self) -> str:
        """What the map is, and its certificate, for notebooks."""
        shown = table("Map between two populations", (), self._facts())
        return shown + ("" if self.certificate is None else self.certificate._repr_html_())


def _vote(
    known: Float[np.ndarray, "n d"], labels: Any, rows: Float[np.ndarray, "m d"], neighbours: int
) -> Carried:
    """Shares of the labels among the nearest known rows."""
    count = min(check_count("neighbours", neighbours), len(known))
    labels = np.asarray(labels)
    if labels.shape != (len(known),) or labels.dtype.kind not in "OUSiub":
        got = f"{labels.dtype} of shape {labels.shape}"
        raise ValueError(f"labels: expected texts or integers, ({len(known)},); got {got}.")
    nearest = require("sklearn.neighbors", "sklearn").KNeighborsClassifier(count)
    nearest.fit(known, labels.astype(str) if labels.dtype.kind == "O" else labels)
    shares, classes = nearest.predict_proba(rows), np.asarray(nearest.classes_)
    return Carried(classes[shares.argmax(axis=1)], shares, classes)


def sample_w2(x: Any, y: Any, most: int = 1000, seed: int = 0) -> float:
    """W2 between two equally large samples, at most `most` rows a side, by exact transport.

    Biased upwards, the more the higher d: compare only values at the same numbers of rows.

    Raises:
        ValueError, TypeError: no rows of finite numbers, or frames of other columns.
        ImportError: POT is missing.
    """
    check_count("most", most)
    check_names("y", y, names_of(x))
    x, y = check_rows("x", x), check_rows("y", y)
    return math.sqrt(2 * discrete(*_as_many(x, y, most, seed)).half_w2_squared)


def _as_many(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], most: int, seed: int
) -> list[Float[np.ndarray, "k d"]]:
    """As many random rows of both, at most `most`."""
    k, rng = min(len(x), len(y), most), np.random.default_rng(seed)
    return [rows[rng.permutation(len(rows))[:k]] for rows in (x, y)]
