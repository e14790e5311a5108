"""One finished computation of a study, as plain data."""

import dataclasses
import json
import numbers
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Cell:
    """One finished computation of a study, the same before and after the store.

    Attributes:
        id: its name in the study.
        inputs: what was asked, as JSON knows it (tuples become lists).
        seed: of everything random in it.
        status: "done", or "failed" with an error.
        values: what came out; NaN and infinities are allowed.
        error: why it failed, None where it is done.
        seconds: how long it took, >= 0.
        weights: its file within the study's `weights/`, if any.

    Raises:
        ValueError, TypeError: a field is not as said.
    """

    id: str
    inputs: dict[str, Any]
    seed: int
    status: Literal["done", "failed"]
    values: dict[str, float]
    error: str | None = None
    seconds: float = 0.0
    weights: str | None = None

    def __post_init__(self) -> None:
        check_name("id", self.id)
        if isinstance(self.seed, bool) or not isinstance(self.seed, numbers.Integral):
            raise TypeError(f"seed: expected an integer; got {type(self.seed).__name__}.")
        if self.status not in ("done", "failed"):
            raise ValueError(f"status: expected 'done' or 'failed'; got {self.status!r}.")
        if isinstance(self.error, str) != (self.status == "failed"):
            wanted = "a message, as it failed" if self.status == "failed" else "None, as it is done"
            raise ValueError(f"error: expected {wanted}; got {self.error!r}.")
        if self.weights is not None:
            _check_file_name("weights", self.weights)
        if not isinstance(self.values, Mapping):
            raise TypeError(f"values: expected a dict; got {type(self.values).__name__}.")
        values = {
            check_name("values", name): _float(f"values[{name!r}]", value)
            for name, value in self.values.items()
        }
        seconds = _float("seconds", self.seconds)
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"seconds: expected a finite number >= 0; got {seconds}.")
        plain_fields = {
            "inputs": plain("inputs", self.inputs),
            "seed": int(self.seed),
            "values": values,
            "seconds": seconds,
        }
        for name, field in plain_fields.items():
            object.__setattr__(self, name, field)


def check_name(argument: str, name: object) -> str:
    """The name, if it is a string that any file or database can hold.

    Raises:
        TypeError, ValueError: not a string; empty, or not text.
    """
    if not isinstance(name, str):
        raise TypeError(f"{argument}: expected a string; got {type(name).__name__}.")
    if not name or "\0" in name or any("\ud800" <= letter <= "\udfff" for letter in name):
        raise ValueError(f"{argument}: expected text that is not empty; got {name!r}.")
    return name


def plain(argument: str, value: object) -> dict[str, Any]:
    """A mapping as JSON gives it back; NumPy's numbers are numbers.

    Raises:
        TypeError, ValueError: not a mapping; something in it that JSON does not know.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{argument}: expected a dict; got {type(value).__name__}.")
    try:
        return json.loads(json.dumps(dict(value), allow_nan=False, default=_number))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{argument}: expected what JSON can hold; {error}") from error


def _number(value: object) -> int | float:
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"got {type(value).__name__}.")


def _float(argument: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{argument}: expected a number; got {type(value).__name__}.")
    return float(value)


def _check_file_name(argument: str, name: object) -> None:
    text = check_name(argument, name)
    plain_name = text == PurePosixPath(text).name == PureWindowsPath(text).name
    if not plain_name or text == "..":
        raise ValueError(f"{argument}: expected a file name without folders; got {name!r}.")
