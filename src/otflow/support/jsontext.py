"""JSON as its standard has it, without NaN and Infinity."""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """As JSON knows it: NaN and infinities are None, NumPy's numbers and arrays plain ones."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def with_nan(history: Mapping[str, Any]) -> dict[str, list[float]]:
    """Columns of numbers as they were before `plain`, but that infinities are NaN too."""
    return {
        str(name): [math.nan if v is None else float(v) for v in values]
        for name, values in history.items()
    }


def json_text(value: Any) -> str:
    """One line of strict JSON: `plain(value)`.

    Raises:
        TypeError: something in it that JSON does not know.
    """
    return json.dumps(plain(value), allow_nan=False)
