"""The maps of an alpha study, from identity to optimal transport, as points that move."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from otflow.data.preprocessing import Standardizer
from otflow.model.modelfile import load_model
from otflow.parallel.batching import map_rows
from otflow.report.carried import principal
from otflow.report.content import Cloud, Moving
from otflow.studies.cell import Cell
from otflow.studies.problems import PROBLEMS, DataProblem, make_problem
from otflow.studies.store import Store

_POINTS, _PATHS = 600, 60


def moving_maps(
    store: Store, X: Float[np.ndarray, "n d"] | None, seed: int
) -> tuple[Moving | None, str]:
    """The panel of an alpha study; or None, and why there is none.

    Args:
        store: of any study.
        X: the rows of a study of data, in their own units.
        seed: of the points.

    Raises:
        ValueError: rows that are not the study's.
    """
    cells = _cells(store)
    if store.settings["kind"] != "alpha" or not cells:
        return None, "No flow of this study is finished." if not cells else ""
    if store.settings["problem"] == DataProblem.name:
        if X is None:
            return None, "To see the maps move, give the study's table as DATA."
        x, limit = _rows(store, X), None
    else:
        found = _exact(store, cells[0], seed)
        if found is None:
            return None, "The maps are shown for the standard problems only."
        x, limit = found
    frames, labels = [x], ["identity"]
    for cell in cells:
        flow = load_model(store.weights_path(cell.id)).flow
        frames.append(np.asarray(map_rows(flow.forward, x), np.float64))
        labels.append(f"alpha = {cell.inputs['alpha']:g}")
    if limit is not None:
        frames.append(limit)
        labels.append("optimal map")
    return _panel(np.stack(frames), tuple(labels), limit is not None, cells[0].seed), ""


def _panel(frames: np.ndarray, labels: tuple[str, ...], exact: bool, seed: int) -> Moving:
    names, where = ("first coordinate", "second coordinate"), ""
    x = frames[0]
    if x.shape[1] == 1:
        start = np.broadcast_to(x, frames.shape)
        frames, names = np.concatenate([start, frames], axis=2), ("x", "T(x)")
    elif x.shape[1] > 2:
        frames = frames @ principal(x)[:, :2]
        names, where = ("component 1", "component 2"), " Shown: two principal components."
    still = (Cloud("optimal map, exact", frames[-1], "exact"),) if exact else ()
    paths = tuple(frames[[0, -1], i] for i in range(min(_PATHS, x.shape[0]))) if exact else ()
    told = "to the optimal map, whose images are the rings" if exact else "to the largest alpha"
    lines = f" Lines join {len(paths)} points to their optimal images." if exact else ""
    return Moving(
        "maps",
        "From identity to optimal transport",
        f"The slider moves {len(x):,} points from where they start through the flow of each alpha "
        f"(seed {seed}) {told}.{lines}{where}",
        frames,
        labels,
        "Map",
        0,
        Cloud("T(x)", frames[0], "model"),
        still,
        paths,
        *names,
    )


def _cells(store: Store) -> list[Cell]:
    """Finished cells with weights of the first seed, one an alpha, in order."""
    found: dict[float, Cell] = {}
    for cell in sorted(store.cells(), key=lambda cell: cell.seed):
        if cell.status == "done" and cell.weights is not None and "alpha" in cell.inputs:
            found.setdefault(float(cell.inputs["alpha"]), cell)
    return [found[alpha] for alpha in sorted(found)]


def _exact(store: Store, cell: Cell, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Points of the data density and their optimal images; None for a problem of the user's own.

    Problems are known by name; that this one is the standard one its exact value must say.
    """
    name, known = store.settings["problem"], cell.values.get("exact_half_w2_squared", math.nan)
    if name not in PROBLEMS:
        return None
    limit: Any = make_problem(name, store.settings["dim"]).reference(math.inf)
    if not math.isclose(limit.half_w2_squared, known, rel_tol=1e-6):
        return None
    x = limit.sample(seed, _POINTS)
    return x, limit.map(x)


def _rows(store: Store, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows that stood for the population, if these are the study's."""
    problem = DataProblem(Standardizer.fit(X).forward(X))
    differ = {k for k, v in problem.settings().items() if store.settings.get(k) != v}
    if differ - {"fingerprint"} or not np.allclose(
        problem.settings()["fingerprint"], store.settings["fingerprint"], rtol=1e-9
    ):
        raise ValueError("DATA: expected the rows that the study was made of; got others.")
    return problem.population[:_POINTS]
