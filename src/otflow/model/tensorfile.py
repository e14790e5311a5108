"""Safetensors files with a JSON document in their header, read with bounded memory.

Model files and checkpoints are both of this kind. The header is checked against the file's size
before anything is read, so a damaged or foreign file costs no more memory than it has bytes.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from otflow.support.files import atomic_path, one_line

MOST_HEADER = 2**24  # bytes; a history of a million steps takes about 10 MB
_DAMAGE = (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)
_MOST_DEPTH = 64  # of brackets in the JSON; a model's structure takes about 20
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class Header(NamedTuple):
    """The JSON document, and the shape and safetensors' dtype of every tensor by name."""

    document: dict[str, Any]
    tensors: dict[str, tuple[tuple[int, ...], str]]


def write_tensors(
    path: str | Path,
    name: str,
    document: dict[str, Any],
    tensors: dict[str, np.ndarray],
    allow_nan: bool = False,
) -> None:
    """Write tensors and a JSON document under the header's entry `name`, atomically.

    Raises:
        OSError: the file cannot be written; a file that was there stays as it is.
        TypeError, ValueError: JSON cannot hold the document, or it is too long.
    """
    text = to_json(document, allow_nan)
    if len(text) > MOST_HEADER // 2:  # quoting inside the header lengthens it
        raise ValueError(f"{path}: the metadata takes {len(text)} bytes; at most {MOST_HEADER}/2.")
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={name: text})
        except SafetensorError as error:  # full disks arrive as text, not as OSError
            raise OSError(f"cannot write {path}: {error}.") from error


def read_header(path: str | Path, name: str) -> Header:
    """The header of a file that `write_tensors` wrote, without its tensors.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is none of those; says why, without the path.
    """
    raw = _header(Path(path))
    metadata = raw.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(name), str):
        raise ValueError("a safetensors file of another program")
    document = _parse(metadata[name].encode())
    if not isinstance(document, dict):
        raise ValueError("its metadata is no JSON object")
    try:
        tensors = {k: (tuple(v["shape"]), str(v["dtype"])) for k, v in raw.items()}
    except (KeyError, TypeError) as error:
        raise ValueError("its header does not describe tensors") from error
    return Header(document, tensors)


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """All tensors by name; call `read_header` first.

    Raises:
        ValueError: damaged, or a tensor is not of finite numbers.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, AttributeError, TypeError) as error:
        raise ValueError(str(error)) from error
    for name, array in tensors.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(f"tensor {name} is of {array.dtype}")
    return tensors


@contextlib.contextmanager
def reading(path: str | Path, what: str = "otflow model") -> Iterator[Path]:
    """A file that is there; whatever is wrong in it is one error, in one line.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is none of `what`, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}.")
    try:
        yield path
    except _DAMAGE as error:
        why = f"no entry {one_line(error)}" if isinstance(error, KeyError) else one_line(error)
        raise ValueError(f"{path}: not a readable {what} ({why}).") from error


def to_json(document: Any, allow_nan: bool = False) -> str:
    """JSON text; NumPy's numbers and types become plain ones.

    Raises:
        TypeError, ValueError: JSON cannot hold it.
    """
    return json.dumps(document, allow_nan=allow_nan, default=_plain)


def check_finite(tensors: dict[str, np.ndarray]) -> None:
    """Raise ValueError, naming them, if tensors hold NaN or infinity."""
    bad = [name for name, array in tensors.items() if not np.isfinite(array).all()]
    if bad:
        raise ValueError(f"it holds non-finite numbers in {', '.join(bad)}")


def _header(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8:
            raise ValueError("no safetensors file, or truncated")
        if length > MOST_HEADER:
            raise ValueError(f"its header takes {length} bytes; at most {MOST_HEADER} are read")
        header = _parse(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header


def _parse(text: bytes) -> Any:
    """JSON, its depth checked first."""
    depth = 0
    for token in _TOKENS.finditer(text):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token.group()[:1], 0)
        if depth > _MOST_DEPTH:
            raise ValueError(f"its JSON is nested more than {_MOST_DEPTH} deep")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its JSON is damaged: {error}") from error


def _plain(value: Any) -> Any:
    """NumPy's numbers and types as JSON knows them."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (type, np.dtype)):
        return np.dtype(value).name
    raise TypeError(f"JSON cannot hold a {type(value).__name__}.")
