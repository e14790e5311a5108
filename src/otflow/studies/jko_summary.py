"""The JKO study's table and statements, from its saved cells alone."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from otflow.studies.cell import Cell
from otflow.studies.rates import fit_rate, verdict_slope
from otflow.studies.result import (
    NOT_RESOLVED,
    Group,
    Series,
    StudyResult,
    groups,
    make_series,
    replicates,
)
from otflow.studies.verdicts import Statement, verdict_at_least
from otflow.support.html import plus_minus
from otflow.support.statistics import Z95

_COLUMNS = (
    "tau",
    "blocks",
    "kl",
    "exact_kl",
    "map_error",
    "flow_error",
    "exact_flow_error",
    "gap_percent",
    "contraction",
    "dissipation",
)
_GAP = 0.02  # of a block's exact minimum
_SLOPE = 0.2  # of the first order, as in the other studies
_EXACT_SLOPE = 0.1  # between the two smallest taus
_OWN = 0.2  # a chain's own error, of the scheme's, up to which its order can be read
_ROUNDING = 1e-9


def summarise_jko(
    settings: dict[str, Any], cells: Sequence[Cell], planned: int | None
) -> StudyResult:
    """Table, statements and series of a JKO study."""
    chains = {tau: groups(group.cells, "block") for tau, group in groups(cells, "tau").items()}
    whole = {t: c for t, c in chains.items() if len(c) == round(settings["time"] / t)}
    ends = {tau: list(chain.values())[-1] for tau, chain in whole.items()}
    blocks = [(tau, b, g) for tau, chain in chains.items() for b, g in chain.items()]
    statements = (
        [*_order(ends), *_scheme(blocks), _minima(blocks), _exact(blocks)] if blocks else []
    )
    return StudyResult.of(
        settings,
        cells,
        planned,
        columns=_COLUMNS,
        rows=[_row(tau, chain) for tau, chain in chains.items()],
        statements=statements,
        series=_series(ends, chains),
        x_name="tau",
    )


def _row(tau: float, chain: dict[float, Group]) -> dict[str, Any]:
    """The last block's values; of gap and contraction the block's that is worst."""
    end = list(chain.values())[-1]
    row: dict[str, Any] = {"tau": tau, "blocks": float(len(chain))}
    for name in ("kl", "map_error", "flow_error", "dissipation"):
        row[name], row[f"{name}_error"] = end.mean(name), end.error(name)
    for name in ("exact_kl", "exact_flow_error"):
        row[name] = end.mean(name)
    worst = max(chain.values(), key=lambda g: _share(g)[0])
    row["gap_percent"], row["gap_percent_error"] = (100 * v for v in _share(worst))
    least = min(chain.values(), key=lambda g: g.mean("contraction"))
    row["contraction"], row["contraction_error"] = (
        least.mean("contraction"),
        least.error("contraction"),
    )
    return row


def _share(group: Group) -> tuple[float, float]:
    """A block's gap as a share of its exact minimum, and the error of that."""
    J = group.mean("exact_objective")
    return group.mean("gap") / J, group.error("gap") / J


def _order(ends: dict[float, Group]) -> list[Statement]:
    """First order in tau: of the exact scheme, and of the chains where their own error is small."""
    exact_claim = "the scheme follows the gradient flow at first order in tau (exact iterates)"
    claim = "chains follow the gradient flow at first order in tau"
    if len(ends) < 2:
        text = f"{len(ends)} whole chains"
        return [Statement(c, NOT_RESOLVED, text) for c in (exact_claim, claim)]
    taus = list(ends)[:2]
    errors = [ends[tau].mean("exact_flow_error") for tau in taus]
    slope = float(np.log(errors[1] / errors[0]) / np.log(taus[1] / taus[0]))
    near = abs(slope - 1) <= _EXACT_SLOPE  # farther off, the taus are too large to tell
    text = f"slope {slope:.3f} between tau = {taus[0]:g} and {taus[1]:g}"
    found = [Statement(exact_claim, "holds" if near else NOT_RESOLVED, text)]
    seen = {t: g for t, g in ends.items() if g.mean("map_error") <= _OWN * g.mean("flow_error")}
    if len(seen) < 2:
        text = f"hidden by the chains' own error at all but {len(seen)} of {len(ends)} taus"
        return [*found, Statement(claim, NOT_RESOLVED, text)]
    rate = fit_rate(list(seen), replicates(seen, "flow_error"))
    text = f"{rate.text}; own error under {100 * _OWN:g} % there"
    return [*found, Statement(claim, verdict_slope(rate, 1.0, _SLOPE), text)]


def _scheme(blocks: list[tuple[float, float, Group]]) -> list[Statement]:
    """What the theory promises of every step, of the chains as they were trained."""
    found = []
    for claim, name in (
        ("KL contracts: KL_(n+1) <= KL_n / (1 + tau)^2", "contraction"),
        ("energy: the sum of 1/2 W2^2 of the steps <= tau (KL_0 - KL_n)", "dissipation"),
    ):
        means = [g.mean(name) for _, _, g in blocks]
        errors = [g.error(name) for _, _, g in blocks]
        i = int(np.argmin(np.array(means) / np.maximum(errors, 1e-300)))
        slack = plus_minus(means[i], Z95 * errors[i], "+-")
        text = f"least certain slack {slack} {_at(*blocks[i][:2])}"
        found.append(Statement(claim, verdict_at_least(means, errors), text))
    return found


def _minima(blocks: list[tuple[float, float, Group]]) -> Statement:
    claim = f"every block is within {100 * _GAP:g} % of its exact proximal minimum"
    shares = [_share(g) for _, _, g in blocks]
    i = int(np.argmax([share for share, _ in shares]))
    value, error = shares[i]
    farthest = plus_minus(100 * value, 100 * Z95 * error, "+-")
    text = f"farthest {farthest} % {_at(*blocks[i][:2])}"
    slack, errors = [_GAP - share for share, _ in shares], [error for _, error in shares]
    return Statement(claim, verdict_at_least(slack, errors), text)


def _exact(blocks: list[tuple[float, float, Group]]) -> Statement:
    claim = "exact iterates: KL and W2 contract, and the energy identity holds"
    names = ("exact_contraction", "exact_w2_contraction", "exact_dissipation")
    slack = [g.mean(name) for _, _, g in blocks for name in names]
    text = f"least slack {min(slack):.3g}, to within {_ROUNDING:g}"
    return Statement(claim, verdict_at_least(slack, np.zeros(len(slack)), slack=_ROUNDING), text)


def _at(tau: float, block: float) -> str:
    return f"at tau = {tau:g}, block {block:g}"


def _series(ends: dict[float, Group], chains: dict[float, dict[float, Group]]) -> list[Series]:
    """The order in tau, and the KL along every chain."""
    found = []
    if ends:
        exact = [g.mean("exact_flow_error") for g in ends.values()]
        drawn = make_series("flow_error", ends, "flow_error", exact)
        found.append(dataclasses.replace(drawn, expected=1.0))
    for tau, chain in chains.items():
        exact = [g.mean("exact_kl") for g in chain.values()]
        drawn = make_series(f"KL along the chain, tau = {tau:g}", chain, "kl", exact)
        found.append(dataclasses.replace(drawn, x_name="block"))
    return found
