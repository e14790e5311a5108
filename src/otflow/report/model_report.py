"""The report of a trained model, as content: from the model file, and a table if there is one."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

import otflow
from otflow.certificates import Certificate
from otflow.certificates.budget import trainable_parameters
from otflow.certificates.summarise import LEAST_ROWS
from otflow.certificates.summary import Summary
from otflow.data.tabular import check_data
from otflow.flow.normalisation import told
from otflow.report.carried import Carried, carry
from otflow.report.certificate_panels import certificate_section
from otflow.report.content import Curve, Curves, Document, Panel, Section, Words
from otflow.report.row_panels import sample_section, target_section
from otflow.report.symbols import in_symbols
from otflow.support.html import number, plus_minus
from otflow.support.statistics import Estimate, covariance, lacking
from otflow.targets import StandardNormal

_COSTS = {
    "transport": ("Transport", "squared units", "What moving the rows costs: E ∫ ½ |v|² dt."),
    "nll": ("Negative log-density", "nats", "How badly the density fits: lower is better."),
    "straightness": (
        "Straightness",
        "squared units",
        "0 where every row moves in a straight line at constant speed, as at the optimum; part of "
        "the objective only where beta > 0.",
    ),
    "hjb": (
        "HJB residual",
        "squared units",
        "0 where the paths are optimal; part of the objective only where beta > 0.",
    ),
}


def model_document(
    model: Any,
    X: Any = None,
    *,
    name: str = "model",
    data_name: str = "the data",
    versions: Mapping[str, str] | None = None,
    certificate: Certificate | None = None,
    truth: float | None = None,
    image: tuple[int, int] | None = None,
    seed: int = 0,
) -> Document:
    """What a fitted `OTFlow` was trained on, what it does to rows, and how optimal it is.

    Statistics use all rows; points in plots are at most 2,000 of them, chosen with the seed.

    Args:
        model: fitted.
        X: (n, d) rows it was not trained on, own units; None shows draws from the model.
        name, data_name: of the model and the rows, in words.
        versions: of the packages that trained it, as the model file has them.
        certificate: of `certify_model`, to be shown with it.
        truth: 1/2 W2^2 in the space of the flow, where it is known.
        image: (height, width) where a row is a grey image.
        seed: of draws and choices.

    Returns:
        The content, for `write_page` and `figures.save_figures`.

    Raises:
        ValueError: X does not fit the model; a conditional model with rows (`model.given` first);
            an image of another size than a row.
    """
    d = model.flow_.dim
    if image is not None and image[0] * image[1] != d:
        raise ValueError(f"image: expected height * width = {d}; got {image[0]} x {image[1]}.")
    sections = [_training_section(model, versions), _loss_section(model)]
    shown, verdict = "", ""
    if model.n_conditions_:
        if X is not None:
            raise ValueError(
                "model: expected an unconditional one with rows; take model.given(condition)."
            )
        shown = "It is conditional: take model.given(condition) to see samples."
    else:
        rows = carry(model, None if X is None else check_data(model, X), seed)
        shown = _shown(rows, data_name)
        if X is not None and len(rows.x) >= LEAST_ROWS:
            summary = model.summary(X, random_state=seed)
            sections.insert(0, _summary_section(summary))
            verdict = f"{summary.verdict} "
        sections += [
            _row_section(model, rows, data_name),
            *sample_section(model, rows, data_name, image),
            *target_section(model, rows),
        ]
    if certificate is not None:
        sections.append(certificate_section(certificate, truth))
    return Document(
        f"OT-Flow report: {name}",
        f"{verdict}A flow in {d} dimension{'s' if d > 1 else ''}, "
        f"alpha = {model.used('alpha'):g}. {shown}",
        tuple(sections),
        f"Made by otflow {otflow.__version__}; seed {seed}.",
    )


def _summary_section(summary: Summary) -> Section:
    """Is the fit good? As `OTFlow.summary` says it."""
    rows = tuple((what, figure, in_symbols(told)) for what, figure, told in summary.rows)
    panels: list[Panel] = [Words("summary", "", "", (), rows)]
    if summary.findings:
        told = tuple((str(i), f"{text}.") for i, text in enumerate(summary.findings, 1))
        panels.insert(0, Words("summary-findings", "", "", (), told))
    return Section("Is the fit good?", summary.verdict, tuple(panels))


def _shown(rows: Carried, data_name: str) -> str:
    n, k = len(rows.x), len(rows.drawn)
    if not rows.given:
        return (
            f"No rows were given: what is shown are {n:,} draws from the flow itself, so nothing "
            "here says whether it fits its data."
        )
    text = f"Statistics are over all {n:,} rows of {data_name}"
    if k < n:
        return f"{text}; plots show {k:,} of them, chosen at random with seed {rows.seed}."
    return f"{text}; plots show all of them."


def _training_section(model: Any, versions: Mapping[str, str] | None) -> Section:
    target = type(model.flow_.target).__name__
    if isinstance(model.flow_.target, StandardNormal):
        target = "standard normal N(0, I)"
    columns = model.column_map_
    rounded = sum(step > 0 for step in columns.step)
    tails = sum(at is not None for at in columns.arcsinh)
    bounded = len(columns.step) - sum(columns.unbounded) - tails
    steps = f"{model.scheme}, {model.flow_.scheme.n_steps} time steps"
    depth = "convex stages" if model.flow_.potential.bijective else f"depth {model.depth}"
    network = f"width {model.used('width')}, {depth}, base {model.base or 'none'}"
    weighed = f"{model.used('beta') or 0:g} {_regulariser(model)}"
    rows = [
        ("Columns", _listed(model.columns_)),
        ("Minimised", f"transport + {model.used('alpha'):g} nll + {weighed}"),
        ("Target", target),
        ("Scheme", steps),
        ("Potential", f"{network}; {trainable_parameters(model.flow_.potential):,} parameters"),
        ("Optimiser", _optimiser(model)),
        ("Stopped", f"{_STATUS.get(model.status_, model.status_)}; kept iteration {model.n_iter_}"),
        ("Precision", str(np.dtype(model.dtype))),
        ("Columns standardised", "yes" if model.standardize else "no"),
        ("Bounded, rounded, arcsinh columns", f"{bounded}, {rounded}, {tails}"),
    ]
    if blocks := getattr(model, "blocks_", ()):
        told = (f"tau {block.tau:.3g}: {block.gain:+.3g} nats" for block in blocks)
        rows.insert(1, ("Blocks, and what each gained", "; ".join(told)))
    if model.n_conditions_:
        names = model.condition_names_ or tuple(f"c{i}" for i in range(model.n_conditions_))
        rows.append(("Condition", _listed(names)))
    if versions:
        rows.append(("Versions", ", ".join(f"{k} {v}" for k, v in versions.items())))
    text = "A flow carries the data to the target along the negative gradient of a potential."
    return Section("What was trained", text, (Words("training", "", "", (), tuple(rows)),))


_STATUS = {
    "max_iter": "after the most iterations allowed",
    "early_stopping": "after validations without improvement",
    "interrupted": "interrupted",
    "non_finite": "the objective became non-finite",
    "no_step": "no natural step lowered the objective: the weights are those before",
}


def _regulariser(model: Any) -> str:
    return "hjb" if model.flow_.scheme.continuous else "straightness"


def _optimiser(model: Any) -> str:
    text = (
        f"batches of {model.batch_size:,}, peak learning rate {model.used('learning_rate'):g}, "
        f"at most {model.max_iter:,} iterations, seed {model.random_state}"
    )
    if model.natural_iter:
        text += f"; then {model.natural_iter:,} natural-gradient steps"
    return text


def _listed(names: tuple[str, ...], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)}: {', '.join(names[:most])}{more}"


def _loss_section(model: Any) -> Section:
    """The costs over the iterations, training and validation apart."""
    history = {k: np.asarray(v, np.float64) for k, v in model.history_.items()}
    phases = [("", history)]
    natural = getattr(model, "natural_history_", None)
    if natural:
        found = {k: np.asarray(v, np.float64) for k, v in natural.items()}
        phases.append((", natural gradient", found))
    panels = []
    for cost, (title, unit, meaning) in _COSTS.items():
        for phase, values in phases:
            if f"val_{cost}" not in values:
                continue
            key = f"loss-{cost}" + ("-natural" if phase else "")
            panels.append(_loss_panel(key, f"{title}{phase}", cost, unit, meaning, values, model))
    text = (
        "One point a validation. The objective is their weighted sum; each is shown by itself, in "
        "the space the flow was trained in."
    )
    return Section("Training", text, tuple(panels))


def _loss_panel(
    key: str,
    title: str,
    cost: str,
    unit: str,
    meaning: str,
    history: dict[str, np.ndarray],
    model: Any,
) -> Panel:
    x = history["iteration"]
    curves = []
    if f"train_{cost}" in history:
        curves.append(Curve("training batches", x, history[f"train_{cost}"], "data", "dashes"))
    y = history[f"val_{cost}"]
    curves.append(Curve("validation", x, y, "model"))
    kept = np.flatnonzero(x == model.n_iter_)
    if "natural" not in key and kept.size:
        curves.append(Curve("weights kept", x[kept[:1]], y[kept[:1]], "exact", "points"))
    return Curves(key, title, meaning, tuple(curves), "iteration", unit)


def _row_section(model: Any, rows: Carried, data_name: str) -> Section:
    """Numbers over all rows."""
    n, invalid = len(rows.x), int((~rows.valid).sum())
    nll = -rows.log_prob[rows.valid]
    error = Estimate.of(nll).half
    moved = rows.displacement.mean()
    share = rows.straightness.mean() / moved if moved > 0 else 0.0
    counted = f"{n:,}" if rows.given else f"{n:,} draws from the flow"
    if rows.without:
        counted += f"; {lacking(rows.without, n + rows.without)} and are left out everywhere"
    facts = [
        ("Rows", counted),
        ("nll", f"{plus_minus(nll.mean() if len(nll) else math.nan, error)} nats (95 %)"),
        ("Transport", f"{number(rows.transport.mean())} squared units of the flow's space"),
        (
            "Straightness",
            f"{number(rows.straightness.mean())} squared units, {share:.2%} of E|T(x) − x|²; 0 on "
            "straight paths",
        ),
        (
            "Not invertible at",
            f"{invalid:,} of {n:,} rows" + (" (left out of nll)" * bool(invalid)),
        ),
        ("Round trip", f"largest |x − T⁻¹(T(x))| {number(_round_trip(model, rows))}"),
    ]
    facts.append(("Integral of the density", told(model.flow_, model.integral_)))
    if isinstance(model.flow_.target, StandardNormal) and n > 1:
        spread = np.linalg.eigvalsh(covariance(rows.y))
        text = f"variances {number(spread[0])} to {number(spread[-1])} along principal directions"
        facts.append(("T(rows)", f"{text} (1 for the target)"))
    title = f"On {data_name}" if rows.given else "On draws from the flow"
    return Section(title, "", (Words("rows", "", "", (), tuple(facts)),))


def _round_trip(model: Any, rows: Carried) -> float:
    """Largest distance over the rows that are drawn, in the space of the flow."""
    chosen = rows.drawn[rows.valid[rows.drawn]]
    if not chosen.size:
        return math.nan
    back = np.asarray(model.flow_.inverse(rows.y[chosen]), np.float64)
    return float(np.linalg.norm(back - rows.z[chosen], axis=1).max())
