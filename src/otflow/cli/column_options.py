"""What `otflow fit` is told of columns, and presets of settings, as options say them."""

import dataclasses
from typing import Any

import numpy as np
from typer import Context

from otflow.cli.tables import split_names
from otflow.data.tables import Table

PRESETS: dict[str, dict[str, Any]] = {
    "density": {"alpha": 1000.0, "beta": 0.0, "n_steps": 6},
    "map": {"n_steps": 1},
    "quick": {"n_steps": 2, "max_iter": 500},
}


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """A table cut into rows, what they are conditioned on, and their weights."""

    rows: Any
    size: tuple[int, int]
    condition: Any = None
    sample_weight: Any = None


def cut(table: Table, condition: str | None, weights: str | None) -> Parts:
    """The columns of a condition and of weights apart from the others.

    Args:
        table: with names, where it is cut.
        condition: names between commas.
        weights: one name.

    Raises:
        ValueError: a name that the table has not, or twice; no column left.
    """
    given = [] if condition is None else split_names(condition)
    taken = given + ([] if weights is None else [weights])
    if not taken:
        return Parts(table.frame(), table.values.shape)
    both = table.select(taken).values
    rest = [name for name in table.columns or () if name not in taken]
    if not rest:
        raise ValueError("--condition, --weights: expected to leave columns to fit; got all.")
    rows = table.select(rest)
    c = table.select(given).frame() if given else None
    return Parts(rows.frame(), rows.values.shape, c, both[:, -1] if weights is not None else None)


def by_column(bounds: str | None, dequantize: str | None, arcsinh: str | None) -> dict[str, Any]:
    """The settings by column that these options say.

    Raises:
        ValueError: they say none.
    """
    steps, scales = parse_steps(dequantize), parse_scales(arcsinh)
    return {"bounds": parse_bounds(bounds), "dequantize": steps, "arcsinh": scales}


def parse_bounds(text: str | None) -> dict[str, tuple[float | None, float | None]] | None:
    """income=0:,share=0:1 as the estimator's `bounds`; an end that is left empty is none.

    Raises:
        ValueError: anything else.
    """
    if text is None:
        return None
    found = {}
    for name, value in _pairs("--bounds", text, "income=0:,share=0:1"):
        low, colon, high = value.partition(":")
        try:
            ends = tuple(float(end) if end.strip() else None for end in (low, high))
        except ValueError:
            colon = ""
        if not colon:
            raise ValueError(f"--bounds: expected LOWER:UPPER for {name}; got {value!r}.")
        found[name] = (ends[0], ends[1])
    return found


def parse_steps(text: str | None) -> Any:
    """auto, one rounding step, or children=1,age=0.5, as the estimator's `dequantize`.

    Raises:
        ValueError: anything else.
    """
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        pass
    found = {}
    for name, value in _pairs("--dequantize", text, "auto, 1 or children=1,age=0.5"):
        try:
            found[name] = float(value)
        except ValueError as error:
            raise ValueError(f"--dequantize: expected a step for {name}; got {value!r}.") from error
    return found


def parse_scales(text: str | None) -> Any:
    """auto, or profit,loss=100: columns by name with a scale or none, as `arcsinh`.

    Raises:
        ValueError: anything else.
    """
    if text is None or text == "auto":
        return text
    found: dict[str, float | None] = {}
    for name, value in _pairs("--arcsinh", text, "auto or profit,loss=100", bare=True):
        try:
            found[name] = float(value) if value.strip() else None
        except ValueError as error:
            raise ValueError(f"--arcsinh: expected a scale for {name}; got {value!r}.") from error
    return found


def preset_values(ctx: Context, name: str | None) -> dict[str, Any]:
    """The settings of a preset that neither a flag nor the configuration file gives.

    Raises:
        ValueError: no such preset.
    """
    if name is None:
        return {}
    if name not in PRESETS:
        raise ValueError(f"--preset: expected one of {', '.join(PRESETS)}; got {name!r}.")
    return {k: v for k, v in PRESETS[name].items() if not _is_given(ctx, k)}


def _is_given(ctx: Context, name: str) -> bool:
    """By a flag or the configuration file."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "DEFAULT_MAP")


def condition_of(flow: Any, table: Table) -> Any:
    """The columns of a table that a conditional model was conditioned on; None for another.

    Raises:
        ValueError: the model does not know their names, or the table has not all of them.
    """
    if not flow.n_conditions_:
        return None
    names = flow.condition_names_
    if names is None:
        raise ValueError("MODEL: expected a condition with names; fit it from a table with names.")
    return table.select(names).frame()


def one_condition(text: str | None) -> Any:
    """Numbers between commas as one condition for all draws; None without.

    Raises:
        ValueError: not numbers.
    """
    if text is None:
        return None
    try:
        return np.array([float(value) for value in text.split(",")])
    except ValueError as error:
        raise ValueError(f"--condition: expected numbers, as 0.5,1; got {text!r}.") from error


def _pairs(option: str, text: str, example: str, bare: bool = False) -> list[tuple[str, str]]:
    """Names and values of NAME=VALUE between commas; `bare`: of NAME too, whose value is empty."""
    parts = split_names(text)
    pairs = [(p if "=" in p or not bare else f"{p}=").rpartition("=")[::2] for p in parts]
    names = [name for name, _ in pairs]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"{option}: expected columns once each, as {example}; got {text!r}.")
    return pairs
