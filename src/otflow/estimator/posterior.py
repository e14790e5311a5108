"""What comes back from `fit_unnormalised`: draws, densities, weights and what they prove."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from rich.table import Table

from otflow.certificates.certificate import Line
from otflow.certificates.evidence import Evidence, strongly_convex_line, weigh
from otflow.data.columns import check_inside
from otflow.estimator.metropolis import independence_metropolis
from otflow.flow.pushed_normal import Draws, PushedNormal
from otflow.flow.unnormalised import LogDensity
from otflow.model.modelfile import decode, encode, heading, read_parts
from otflow.model.tensorfile import reading, write_tensors
from otflow.support.checks import check_count, check_fraction, check_number, check_rows
from otflow.support.extras import require
from otflow.support.html import table
from otflow.support.jsontext import plain, with_nan
from otflow.support.memory import check_fits
from otflow.support.precision import dtype_of, precision

_ENTRY, _VERSION = "otflow-posterior", 1
_DRAWS = 2**14  # behind `evidence`


class Chains(NamedTuple):
    """States of independence Metropolis, and the share of proposals that were accepted."""

    points: Float[np.ndarray, "chains n d"]
    acceptance: float


@dataclasses.dataclass(frozen=True, eq=False)
class Posterior:
    """A law q near a density p that is known up to a constant; see `fit_unnormalised`.

    All draws are in the parameters' own, bounded space; densities are with respect to it.

    Attributes:
        law: q.
        names: of the parameters.
        density: log p + log Z; None of a file that was loaded without it, which can be drawn from
            and has `log_prob`, but no weights.
        status: why training stopped.
        training: history of the fit, natural_history of its natural steps if any, and seconds.
    """

    law: PushedNormal
    names: tuple[str, ...]
    density: LogDensity | None
    status: str
    training: dict[str, Any]

    @property
    def dim(self) -> int:
        """d."""
        return self.law.dim

    def sample(self, n: int, seed: int = 0) -> Float[np.ndarray, "n d"]:
        """n independent draws of q, (n, d) float64.

        Raises:
            ValueError, TypeError: n or seed out of range.
            MemoryError: they do not fit.
        """
        self._check(n, seed)
        return self.law.draw(n, seed).points

    def weighted(self, n: int, seed: int = 0) -> Draws:
        """The draws of `sample`, with log q and log weights: sum(w f) / sum(w) estimates E_p f.

        Raises:
            ValueError, TypeError: as `sample`; or the log-density is not known.
        """
        self._check(n, seed)
        drawn = self.law.draw(n, seed, self._known())
        bad = int(_unusable(drawn).sum())
        if bad:
            raise ValueError(
                f"log_density: expected finite numbers or -inf; got others at {bad} of {n} draws."
            )
        return drawn

    def log_prob(self, theta: Any) -> Float[np.ndarray, " n"]:
        """log q, nats, of (n, d) parameters within their bounds.

        Raises:
            ValueError, TypeError: no rows of finite numbers, or values outside the bounds.
        """
        rows = check_rows("theta", theta, self.dim)
        check_inside(self.law.columns, rows, self.names, "theta")
        return self.law.log_prob(rows)

    def evidence(self, n: int = _DRAWS, seed: int = 1, confidence: float = 0.95) -> Evidence:
        """Effective sample size, Pareto k, log Z and KL from n fresh draws.

        log Z is that of n others, of a law that reaches farther than q, where the log-density can
        be computed at all of them.

        Raises:
            ValueError, TypeError: as `weighted`; n below 2 or confidence out of (0, 1).
        """
        check_count("n", n, 2)
        check_fraction("confidence", confidence)
        log_weight = self.weighted(n, seed).log_weight
        wide = self.law.draw_wide(n, seed + 1, self._known())
        far = None if _unusable(wide).any() else wide.log_weight
        return weigh(log_weight, confidence, far)

    @functools.cached_property
    def summary(self) -> Evidence:
        """`evidence()`, computed once."""
        return self.evidence()

    def kl_bound(
        self, convexity: float, n: int = 2**12, seed: int = 1, confidence: float = 0.95
    ) -> Line:
        """A bound of KL(q || p) where -log p is strongly convex on the line.

        Args:
            convexity: kappa > 0 with Hess(-log p) >= kappa I everywhere, for parameters without
                bounds; for bounded ones, of the law of their image on the line.
            n: draws.
            seed: of the draws.
            confidence: of the bound.

        Raises:
            ValueError, TypeError: as `evidence`.
        """
        check_number("convexity", convexity, positive=True)
        check_fraction("confidence", confidence)
        self._check(n, seed, 2)
        return strongly_convex_line(
            self.law.scores(self._known(), n, seed), float(convexity), confidence
        )

    def metropolis(self, n: int, chains: int = 4, seed: int = 0) -> Chains:
        """Chains that leave p invariant, their proposals draws of q: what is left is corrected.

        A proposal is accepted with probability min(1, w'/w). Where q misses mass of p, so do
        chains of any practical length.

        Args:
            n: states a chain.
            chains: independent ones.
            seed: of the proposals and the decisions.

        Raises:
            ValueError, TypeError: as `weighted`.
        """
        check_count("chains", chains)
        check_count("n", n)
        drawn = self.weighted(n * chains, seed)
        found = independence_metropolis(drawn.log_weight.reshape(chains, n), seed)
        points = drawn.points.reshape(chains, n, self.dim)
        return Chains(np.take_along_axis(points, found.proposal[:, :, None], 1), found.rate)

    def to_arviz(self, n: int = 1000, chains: int = 4, seed: int = 0) -> Any:
        """The chains of `metropolis` as an `arviz.InferenceData`, a variable a parameter.

        Raises:
            ValueError, TypeError: as `metropolis`.
            ImportError: arviz is missing (extra `arviz`).
        """
        arviz = require("arviz", "arviz")
        points = self.metropolis(n, chains, seed).points
        return arviz.from_dict({name: points[..., j] for j, name in enumerate(self.names)})

    def save(self, path: str | Path) -> None:
        """Write the law to one file without code; the log-density is not part of it.

        Raises:
            OSError: the file cannot be written.
        """
        tensors: dict[str, np.ndarray] = {}
        structure = encode(self.law, "law", tensors)
        document = heading(_VERSION, self.law.potential, structure) | {
            "names": list(self.names),
            "status": self.status,
            "training": plain(self.training),
        }
        write_tensors(path, _ENTRY, document, tensors)

    @staticmethod
    def load(path: str | Path, log_density: Callable[..., Any] | None = None) -> "Posterior":
        """What `save` wrote.

        Args:
            path: of the file.
            log_density: that it was fitted to; without it there are no weights.

        Raises:
            FileNotFoundError, ValueError: no such file, or not one of a posterior.
            TypeError, ValueError: a bad log-density, as in `fit_unnormalised`.
        """
        with reading(path, "posterior") as path:
            document, tensors = read_parts(path, _ENTRY, _VERSION)
            with precision(document["dtype"]):
                law = decode(document["structure"], tensors)
            names = tuple(map(str, document["names"]))
            if not isinstance(law, PushedNormal) or len(names) != law.dim or tensors:
                raise ValueError("expected a law and the names of its parameters")
            training = {
                name: with_nan(kept) if isinstance(kept, dict) else kept
                for name, kept in document["training"].items()
            }
            found = Posterior(law, names, None, document["status"], training)
        if log_density is None:
            return found
        with precision(dtype_of(law.potential)):
            density = LogDensity(log_density, law.dim)
        return dataclasses.replace(found, density=density)

    def rows(self) -> list[tuple[str, str, str]]:
        """Mean, deviation and 95 % interval of every parameter, of the weighted draws."""
        drawn = self.weighted(_DRAWS, 1)
        w = np.exp(drawn.log_weight - drawn.log_weight.max())
        w /= w.sum()
        mean = w @ drawn.points
        deviation = np.sqrt(w @ (drawn.points - mean) ** 2)
        low, high = np.quantile(
            drawn.points, (0.025, 0.975), axis=0, weights=w, method="inverted_cdf"
        )
        return [
            (name, f"{m:.4g} +- {s:.3g}", f"[{a:.4g}, {b:.4g}]")
            for name, m, s, a, b in zip(self.names, mean, deviation, low, high, strict=True)
        ]

    def _repr_html_(self) -> str:
        if self.density is None:
            return table("Posterior", (), [("parameters", ", ".join(self.names))])
        header = ("parameter", "mean and deviation", "95 % interval")
        return table("Posterior", header, self.rows()) + self.summary._repr_html_()

    def __rich__(self) -> Table:
        found = Table("what", "value", "interval", "label", title=f"Posterior ({self.status})")
        if self.density is None:
            return found
        for row in self.rows():
            found.add_row(*row, "weighted draws")
        found.add_section()
        for line in self.summary.rows():
            found.add_row(*line)
        found.caption = "; ".join(self.summary.findings) or None
        return found

    def _known(self) -> LogDensity:
        if self.density is None:
            raise ValueError(
                "log_density: expected the posterior's, for its weights; got none: give it to load."
            )
        return self.density

    def _check(self, n: int, seed: int, least: int = 1) -> None:
        check_count("n", n, least)
        check_count("seed", seed, 0)
        check_fits("n", n, self.dim)


def _unusable(drawn: Draws) -> np.ndarray:
    return np.isnan(drawn.log_weight) | np.isposinf(drawn.log_weight)
