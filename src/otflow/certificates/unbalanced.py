"""How optimal a flow with growth is: its price against the unbalanced dual (SPEC 6 and 10).

On a coupling's pairs (x, T(x)) with growth m the price 2 delta^2 (1 + m - 2 sqrt(m) cos theta) less
the dual's terms (`growth_dual`) is nonnegative: what a flow pays too much is at most its mean.
"""

import dataclasses
import math
import time

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from otflow.certificates.bounds import ASSUMPTION, lower_bound
from otflow.certificates.bracket import Bracket, bracket, check_run
from otflow.certificates.certificate import DENSITY, Certificate, Finding, Line
from otflow.certificates.fitting import DualConfig, fit_dual
from otflow.certificates.growth_dual import GrowthDual, shares_x, shares_y
from otflow.certificates.lines import labelled, mean_line
from otflow.flow.growing import GrowingFlow
from otflow.support.checks import check_rows
from otflow.support.precision import cast, default_rules, precision

_LEAST = 40
_WIDE = 0.1  # share of the price above which optimality counts as not shown


@default_rules()
def certify_growth(
    flow: GrowingFlow,
    X: Float[np.ndarray, "n d"],
    Y: Float[np.ndarray, "k d"] | None = None,
    *,
    seconds: float = 60.0,
    seed: int = 0,
    confidence: float = 0.95,
    config: DualConfig | None = None,
    space: str = "the space the flow was trained in",
) -> Certificate:
    """Bracket the least price between mass_x times the law of X and what the flow makes of it.

    Args:
        flow: taken as a given map with a growth, evaluated in float64.
        X: (n, d) rows of the start that the flow was not trained on, n >= 40; halved into those
            that the dual potential is fitted to and others.
        Y: (k, d) rows of the wanted end, k >= 40, for a lower bound of the least price to there;
            None for none.
        seconds: for fitting the dual potential; results repeat only where it is not reached.
        seed: of the halves and the fit.
        confidence: of the bracket and of every line labelled proved, each by itself.
        config: how hard to fit.
        space: how the certificate names the space of its figures.

    Returns:
        The certificate: squared units of the flow's space times mass. One step is optimal between
        its ends by construction, more are measured.

    Raises:
        ValueError, TypeError: an argument of the wrong type, shape or range.
    """
    began = time.perf_counter()
    x = check_rows("X", X, flow.dim, _LEAST)
    y = None if Y is None else check_rows("Y", Y, flow.dim, _LEAST)
    check_run(seconds, seed, confidence)
    order = np.random.default_rng(seed).permutation(len(x))
    fit, rest = x[order[: len(x) // 2]], x[order[len(x) // 2 :]]
    flow = cast(flow, "float64")
    pairs, own = _Pairs.of(flow, rest), flow.scheme.n_steps == 1
    fitting, gap, at_end = _Pairs.of(flow, fit), None, []
    if not own or y is not None:
        config = DualConfig() if config is None else config
        dual = _fitted(flow, fitting, config, seconds, seed)
        gap = None if own else flow.mass_x * pairs.gaps(dual)
        if y is not None:
            at_end = [_end_line(flow, dual, rest, y, confidence)]
    every = np.concatenate([pairs.price, fitting.price])
    found = bracket(flow.mass_x * every, gap, confidence)
    lines = [*_price_lines(found, own), _mass_line(flow, pairs, confidence), *at_end]
    invalid = int((~pairs.valid).sum())
    return Certificate(
        lower=found.lower,
        upper=found.upper,
        confidence=confidence,
        lines=tuple(lines),
        budget=(),
        findings=_findings(found, invalid, len(rest)),
        invalid=invalid,
        checked=len(rest),
        n=found.n,
        dim=flow.dim,
        space=space,
        seconds=time.perf_counter() - began,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Pairs:
    """A coupling: starts, ends, growth, the price of each pair, and where the flow is one."""

    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, "n d"]
    growth: Float[np.ndarray, " n"]
    delta: float
    valid: Bool[np.ndarray, " n"]

    @staticmethod
    def of(flow: GrowingFlow, x: Float[np.ndarray, "n d"]) -> "_Pairs":
        found = flow.push(x)
        y, valid = np.asarray(found.points), np.asarray(found.valid)
        return _Pairs(x, y, np.exp(np.asarray(found.log_mass)), flow.scheme.delta, valid)

    @property
    def cosine(self) -> Float[np.ndarray, " n"]:
        """Of the angle between start and end; 0 where it is cheaper to die and grow anew."""
        angle = np.linalg.norm(self.y - self.x, axis=1) / (2 * self.delta)
        return np.cos(np.minimum(angle, math.pi / 2))

    @property
    def price(self) -> Float[np.ndarray, " n"]:
        """Of a path on the cone between the ends of each pair."""
        root = np.sqrt(self.growth)
        return 2 * self.delta**2 * ((root - 1) ** 2 + 2 * root * (1 - self.cosine))

    def shares(self, dual: GrowthDual) -> tuple[np.ndarray, np.ndarray]:
        """exp(-phi / (2 delta^2)) at the starts and the bound of it at the ends."""
        return shares_x(dual, self.x), shares_y(dual, self.y, self.x)

    def gaps(self, dual: GrowthDual) -> Float[np.ndarray, " n"]:
        """The price less the dual's terms, >= 0."""
        p, q = self.shares(dual)
        matched = 2 * np.sqrt(self.growth) * self.cosine
        return 2 * self.delta**2 * (p + self.growth * q - matched)

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """The starts that go less than half way to pi delta, and grad u at them: x - grad_x c."""
        moved = self.x - self.y
        angle = np.linalg.norm(moved, axis=1) / (2 * self.delta)
        near = (angle < 0.9 * math.pi / 2) & np.isfinite(self.growth)
        moved, angle = moved[near], angle[near]
        stretch = np.where(angle > 1e-6, np.tan(angle) / np.maximum(angle, 1e-6), 1.0)
        return self.x[near], self.x[near] - stretch[:, None] * moved


def _fitted(
    flow: GrowingFlow, pairs: _Pairs, config: DualConfig, seconds: float, seed: int
) -> GrowthDual:
    """u whose gradient is that of the pairs, and the level that is best on them."""
    u = fit_dual(*pairs.images(), config, seconds, seed)
    with precision("float64"):
        dual = GrowthDual(cast(u, "float64"), jnp.zeros(()), flow.scheme.delta)
    p, q = pairs.shares(dual)
    level = pairs.delta**2 * math.log(p.mean() / (pairs.growth * q).mean())
    with precision("float64"):
        return eqx.tree_at(lambda d: d.level, dual, jnp.asarray(level))


_UNIT = "squared data units times mass"


def _price_lines(found: Bracket, own: bool) -> list[Line]:
    whole, in_gap = found.doubts
    how = "the one step is optimal by construction" if own else "the unbalanced dual"
    text = (
        "value: the price of the flow's coupling, 2 delta^2 (1 + m - 2 sqrt(m) cos theta) a unit "
        f"of mass; interval: from {how} to that price; assumes {ASSUMPTION}"
    )
    bound = "price less the least one, at most"
    return [
        _line(
            "WFR(start, what arrives)",
            found.half_displacement,
            (found.lower, found.upper),
            text,
            found.confidence,
            whole,
        ),
        _line("excess price", found.gap, (0.0, found.excess), bound, found.confidence, in_gap),
    ]


def _line(
    name: str,
    value: float,
    ends: tuple[float | None, float | None],
    text: str,
    confidence: float,
    doubt: str,
) -> Line:
    label, told = labelled(confidence, text, doubt)
    return Line(name, value, ends, label, _UNIT, told)


def _mass_line(flow: GrowingFlow, pairs: _Pairs, confidence: float) -> Line:
    text = "mass_x times the mean growth of rows; every step is a bijection, so none is lost"
    values = flow.mass_x * pairs.growth
    return mean_line("mass that arrives", values, "mass", text, confidence)


def _end_line(
    flow: GrowingFlow, dual: GrowthDual, x: np.ndarray, y: np.ndarray, confidence: float
) -> Line:
    """The dual at rows of the start and of the wanted end: no pairs, no densities."""
    unit, level = 2 * dual.delta**2, (1 + confidence) / 2
    near = np.asarray(flow.pull(y).points)
    of_x = unit * flow.mass_x * (1 - shares_x(dual, x))
    of_y = unit * flow.mass_y * (1 - shares_y(dual, y, near))
    bounds = [lower_bound(values, level) for values in (of_x, of_y)]
    low = max(bounds[0].value + bounds[1].value, 0.0)
    return _line(
        "WFR(start, wanted end), lower bound",
        max(float(of_x.mean() + of_y.mean()), 0.0),
        (low, None),
        "the unbalanced dual at rows of X and of Y; no density is relied on",
        confidence,
        bounds[0].doubt or bounds[1].doubt,
    )


def _findings(found: Bracket, invalid: int, checked: int) -> tuple[Finding, ...]:
    said = []
    if invalid:
        told = f"{invalid} of {checked} rows overflow: their growth is not known."
        said.append(Finding(told, DENSITY))
    if found.excess > _WIDE * max(found.half_displacement, 1e-300):
        share = found.excess / max(found.half_displacement, 1e-300)
        told = f"optimality is not shown: the excess price may be {share:.0%} of the price."
        said.append(Finding(told))
    for doubt in sorted(set(found.doubts) - {""}):
        said.append(Finding(f"the bracket is estimated only: {doubt}."))
    return tuple(said)
