"""Training logs: callbacks for `on_validation`, one row of the history a call."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from otflow.support.extras import require
from otflow.support.files import check_writable
from otflow.support.jsontext import json_text

Row = dict[str, Any]
Log = Callable[[Row], None]


@contextlib.contextmanager
def json_lines(path: str | Path, append: bool = False) -> Iterator[Log]:
    """One JSON object a line, flushed at once; numbers that are not finite are null.

    A line that cannot be written costs a warning, not the run.

    Args:
        path: the file; one that exists is replaced at the first row.
        append: write at its end instead, as a resumed run does.

    Raises:
        OSError: the file cannot be written.
    """
    path = check_writable(path)
    modes = iter(["a" if append else "w"])

    def log(row: Row) -> None:
        try:
            with path.open(next(modes, "a")) as file:
                file.write(json_text(row) + "\n")
        except OSError as error:
            warnings.warn(f"{path} lacks a row of the log: {error}", UserWarning, stacklevel=2)

    yield log


@contextlib.contextmanager
def tensorboard(folder: str | Path) -> Iterator[Log]:
    """Scalars `phase/name` for TensorBoard by tensorboardX.

    Raises:
        ImportError: tensorboardX, of the extra `otflow[log]`, is not installed.
    """
    writer = require("tensorboardX", "log").SummaryWriter(str(folder))

    def log(row: Row) -> None:
        for name, value in _scalars(row).items():
            writer.add_scalar(name, value, row["iteration"])

    try:
        yield log
    finally:
        writer.close()


@contextlib.contextmanager
def mlflow(settings: dict[str, Any] | None = None) -> Iterator[Log]:
    """Metrics `phase/name` of the active MLflow run, or of a new one, and its parameters.

    Args:
        settings: parameters to log.

    Raises:
        ImportError: MLflow, of the extra `otflow[mlflow]`, is not installed.
    """
    client = require("mlflow", "mlflow")
    with contextlib.ExitStack() as stack:
        if client.active_run() is None:
            stack.enter_context(client.start_run())
        if settings:
            client.log_params(settings)
        yield lambda row: client.log_metrics(_scalars(row), step=row["iteration"])


def _scalars(row: Row) -> dict[str, float]:
    """The finite numbers of a row, named by their phase."""
    numbers = {k: v for k, v in row.items() if k not in ("phase", "iteration")}
    return {f"{row['phase']}/{k}": v for k, v in numbers.items() if math.isfinite(v)}
