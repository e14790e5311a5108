"""What the weights of draws say of the law they were drawn from, and what they cannot (SPEC 8).

q is the law of the draws, p = exp(-E)/Z the density known up to Z, w = exp(-E)/q. Jensen gives
E_q log w <= log Z for every q. The rest is about p only where q goes: mass of p that no draw
reached shows in none of it.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from otflow.certificates.bounds import ASSUMPTION, lower_bound, upper_bound
from otflow.certificates.certificate import ESTIMATED, Line, line_of
from otflow.certificates.lines import labelled, mean_line
from otflow.certificates.tails import upper_tail
from otflow.flow.objective import kl_terms
from otflow.support.html import table

_USABLE, _LIGHT = 0.7, 0.5  # Vehtari et al., Pareto smoothed importance sampling (2024)
_FEW = 0.1  # effective share of draws below which a finding says so
_UNSEEN = "mass of the posterior that no draw reached shows in none of these figures"


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Figures of n independent draws and their weights.

    Attributes:
        ess: effective sample size (sum w)^2 / sum w^2, of n.
        pareto_k: tail index of the weights: no variance from 1/2, useless from 0.7.
        lines: log Z with its interval, its lower bound, and the KL of q to p, each labelled.
        findings: what is wrong, one sentence each.
        n: draws.
    """

    ess: float
    pareto_k: float
    lines: tuple[Line, ...]
    findings: tuple[str, ...]
    n: int

    @property
    def log_evidence(self) -> float:
        """log Z, nats."""
        return self.line("log Z").value

    @property
    def lower_bound(self) -> float:
        """What log Z lies above, one-sided, nats."""
        interval = self.line("E log w <= log Z").interval
        assert interval is not None
        assert interval[0] is not None
        return interval[0]

    @property
    def kl(self) -> float:
        """KL(q || p) as far as the draws see it, nats."""
        return self.line("KL(q || posterior)").value

    def line(self, name: str) -> Line:
        """The line of that name.

        Raises:
            KeyError: there is none; the message lists the names.
        """
        return line_of(self.lines, name)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Name, value, interval and label, for tables."""
        share = f"{100 * self.ess / self.n:.1f} % of {self.n} draws"
        shown = [("effective sample size", f"{self.ess:.0f}", share, ESTIMATED)]
        shown.append(("Pareto k", f"{self.pareto_k:.2f}", "usable below 0.7", ESTIMATED))
        return shown + [line.texts for line in self.lines]

    def _repr_html_(self) -> str:
        found = table("", ("what", "value", "interval", "label"), self.rows())
        return found + table("Findings", (), [("-", text) for text in self.findings or ("none",)])


def weigh(
    log_weights: Float[np.ndarray, " n"],
    confidence: float = 0.95,
    wide: Float[np.ndarray, " m"] | None = None,
) -> Evidence:
    """The figures of independent draws.

    Args:
        log_weights: log w of the draws, n >= 2; -inf where the posterior has no density.
        confidence: of every interval.
        wide: log of exp(-E) over the density of draws of a wider law, for log Z: weights of q's
            own draws are unbounded where q's tails are the lighter ones.

    Raises:
        ValueError: fewer than two, NaN or +inf among them, or all of them -inf.
    """
    log_w = _read("log_weights", log_weights)
    far = log_w if wide is None else _read("wide", wide)
    n, log_z = log_w.size, log_mean(far)
    lines = (
        _log_z(log_z, np.exp(far - log_z), confidence, "" if wide is None else " of a wider law"),
        _jensen(log_w, confidence),
        _kl(log_w - log_z, confidence),
    )
    w = np.exp(log_w - log_mean(log_w))  # of mean 1
    ess, k = float(n / np.mean(w**2)), pareto_k(log_w)
    return Evidence(ess, k, lines, tuple(_findings(ess / n, k)), n)


def _read(name: str, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    log_w = np.asarray(values, np.float64)
    if log_w.ndim != 1 or log_w.size < 2:
        raise ValueError(f"{name}: expected shape (n,), n >= 2; got {log_w.shape}.")
    if np.isnan(log_w).any() or np.isposinf(log_w).any() or np.isneginf(log_w).all():
        raise ValueError(f"{name}: expected finite numbers or -inf; got others.")
    return log_w


def log_mean(log_w: Float[np.ndarray, " n"]) -> float:
    """log of the mean weight."""
    return float(logsumexp(log_w) - math.log(log_w.size))


def pareto_k(log_weights: Float[np.ndarray, " n"]) -> float:
    """Tail index of the weights by `tails.upper_tail`; -inf where they are all equal, or few."""
    w = np.exp(log_weights - np.max(log_weights))
    tail = upper_tail(w[None]) if np.ptp(w) > 1e-12 else None
    return -math.inf if tail is None else float(tail.index[0])


def strongly_convex_line(
    scores: Float[np.ndarray, "n d"], convexity: float, confidence: float = 0.95
) -> Line:
    """KL(q || p) <= E_q |grad log(q/p)|^2 / (2 kappa), where Hess E >= kappa I everywhere.

    The one bound here that sees all mass of the posterior: there is none apart from the mode.

    Args:
        scores: grad (log q - log p) at draws of q.
        convexity: kappa, which nothing here checks.

    Source: Bakry and Emery, Diffusions hypercontractives (1985).
    """
    found = upper_bound(np.sum(scores**2, axis=1) / (2 * convexity), confidence)
    text = f"E|grad log(q/p)|^2 / (2 kappa), kappa = {convexity:g} as given; assumes {ASSUMPTION}"
    label, text = labelled(confidence, text, found.doubt)
    value = float(np.mean(np.sum(scores**2, axis=1)) / (2 * convexity))
    return Line("KL(q || posterior) at most", value, (None, found.value), label, "nats", text)


def _log_z(log_z: float, w: Float[np.ndarray, " n"], confidence: float, whose: str) -> Line:
    level = (1 + confidence) / 2
    low, high = lower_bound(w, level).value, upper_bound(w, level).value
    ends = (log_z + math.log(low) if low > 0 else None, log_z + math.log(high))
    text = f"log of the mean weight{whose}; {_UNSEEN}"
    return Line("log Z", log_z, ends, ESTIMATED, "nats", text)


def _jensen(log_w: Float[np.ndarray, " n"], confidence: float) -> Line:
    name, text = "E log w <= log Z", f"Jensen's inequality, for any q; assumes {ASSUMPTION}"
    if np.isneginf(log_w).any():
        return Line(name, -math.inf, (-math.inf, None), ESTIMATED, "nats", "a weight is 0")
    found = lower_bound(log_w, confidence)
    label, text = labelled(confidence, text, found.doubt)
    return Line(name, float(log_w.mean()), (found.value, None), label, "nats", text)


def _kl(log_ratio: Float[np.ndarray, " n"], confidence: float) -> Line:
    """log Z - E log w; its terms are nonnegative, and no error of log Z enters at first order."""
    name, text = "KL(q || posterior)", "log Z - E log w"
    if np.isneginf(log_ratio).any():
        return Line(name, math.inf, None, ESTIMATED, "nats", "a weight is 0")
    return mean_line(name, kl_terms(-log_ratio), "nats", text, confidence, _UNSEEN)


def _findings(share: float, k: float) -> Iterator[str]:
    if k >= _USABLE:
        yield f"Pareto k is {k:.2f}: the weights have next to no mean, log Z is not to be trusted"
    elif k >= _LIGHT:
        yield f"Pareto k is {k:.2f}: the weights have no variance, averages converge slowly"
    if share < _FEW:
        yield f"the draws are worth {100 * share:.2g} % of their number"
