"""Maps under a condition: against the exact ones of Gaussians, and on held-out rows of a turbine.

    python benchmarks/between_given.py                 # some minutes
    python benchmarks/between_given.py --quick         # little training

Gaussians: x | c and y | c are normal in the plane with means, and of "turning" also covariances,
that move with c; the optimal map for every c is known. L2-UVP: percent of the variance of y
given c.

Turbine (gas_turbine.npz, where it is there): four readings of 2011 and 2012 to those of 2014 and
2015, given the season (the place of an hour in its year, as a point of a circle), from the order of
the rows. W2 between carried held-out rows and held-out rows of each quarter of the year, in the
columns' deviations; beside it the map that does not know the season, no map, and two halves of
held-out rows.
"""

import argparse
import platform
import time
import warnings
from pathlib import Path

import numpy as np
from scipy import linalg

from otflow import transport_between
from otflow.datasets.tables import read_arrays
from otflow.estimator.between import sample_w2
from otflow.support.jsontext import json_text
from tables import DATA

YEARS = (7411, 7628, 7152, 7158, 7384)  # hours of 2011 to 2015, in the order of the rows
READINGS = {"TIT": 5, "TEY": 7, "CO": 9, "NOX": 10}  # columns
ROOT_X = np.array([[1.0, 0.3], [0.3, 0.8]])


def law(c: np.ndarray, turning: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and symmetric root of the covariance of y given c, for every c."""
    mean = np.column_stack([3 + 2 * c, -1 - c**2 if turning else np.full_like(c, -1.0)])
    angle, size = (0.8 * c, np.exp(0.5 * c)) if turning else (0 * c, 1 + 0 * c)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.moveaxis(np.array([[cos, -sin], [sin, cos]]), -1, 0)
    axes = size[:, None, None] * np.diag([1.5, 0.5])
    return mean, turn @ axes @ turn.transpose(0, 2, 1)


def draw(n: int, rng: np.random.Generator, turning: bool) -> tuple[np.ndarray, ...]:
    """Rows of x and of y, each with its own conditions."""
    c_x, c_y = rng.standard_normal((2, n))
    x = np.column_stack([-c_x, 0.5 * c_x]) + rng.standard_normal((n, 2)) @ ROOT_X
    mean, root = law(c_y, turning)
    y = mean + np.einsum("nij,nj->ni", root, rng.standard_normal((n, 2)))
    return x, c_x, y, c_y


def exact(x: np.ndarray, c: np.ndarray, turning: bool) -> np.ndarray:
    """The map of Bures from x | c to y | c."""
    mean, roots = law(c, turning)
    back = np.linalg.inv(ROOT_X)
    found = np.empty_like(x)
    for i, root in enumerate(roots):
        A = back @ np.real(linalg.sqrtm(ROOT_X @ root @ root @ ROOT_X)) @ back
        found[i] = mean[i] + A @ (x[i] - [-c[i], 0.5 * c[i]])
    return found


def gaussians(turning: bool, seed: int, quick: bool, settings: dict) -> dict:
    """L2-UVP on average and at three conditions, and the certificate on average."""
    rng = np.random.default_rng(seed)
    x, c_x, y, c_y = draw(1000 if quick else 4000, rng, turning)
    start = time.perf_counter()
    given = {"condition_x": c_x[:, None], "condition_y": c_y[:, None]}
    between = transport_between(x, y, **given, seed=seed, **settings)
    row = {"set": "turning" if turning else "shifting", "seed": seed}
    row["seconds"] = time.perf_counter() - start

    def uvp(x: np.ndarray, c: np.ndarray) -> float:
        error = between.transform(x, c[:, None]) - exact(x, c, turning)
        variance = np.sum(law(c, turning)[1] ** 2, axis=(1, 2)).mean()
        return float(100 * np.sum(error**2, axis=1).mean() / variance)

    held, c_held, _, _ = draw(2000, rng, turning)
    row["uvp"] = uvp(held, c_held)
    for c in (-1.5, 0.0, 1.5):
        rows = np.array([-c, 0.5 * c]) + rng.standard_normal((1000, 2)) @ ROOT_X
        row[f"uvp at {c:g}"] = uvp(rows, np.full(1000, c))
    certificate = between.certify(held, None, c_held[:, None], seconds=20.0)
    scale = between.model.standardizer_.scale[0]
    moved = np.sum((exact(held, c_held, turning) - held) ** 2, axis=1)
    row["exact"] = float(0.5 * moved.mean() / scale**2)
    row |= {"lower": certificate.lower, "upper": certificate.upper}
    row["excess"] = certificate.line("excess transport").interval[1]
    return row


def turbine(folder: Path, seed: int, quick: bool, settings: dict) -> list[dict]:
    """A row for every quarter of the year."""
    (table,) = read_arrays(folder / "gas_turbine.npz", "X")
    starts = np.cumsum((0, *YEARS))
    z = table[:, list(READINGS.values())]
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    phase = np.concatenate([np.arange(n) / n for n in YEARS])
    rng = np.random.default_rng(seed)
    early, late = np.arange(starts[2]), np.arange(starts[3], starts[5])
    sizes = (600, 600) if quick else (4000, 3000)
    (fit_x, held_x), (fit_y, held_y) = (
        np.split(rng.permutation(rows)[: sum(sizes)], sizes[:1]) for rows in (early, late)
    )

    def circle(rows: np.ndarray) -> np.ndarray:
        return np.column_stack([f(2 * np.pi * phase[rows]) for f in (np.cos, np.sin)])

    given = {"condition_x": circle(fit_x), "condition_y": circle(fit_y)}
    known = transport_between(z[fit_x], z[fit_y], **given, seed=seed, **settings)
    plain = transport_between(z[fit_x], z[fit_y], seed=seed, **settings)
    rows = []
    for quarter in range(4):
        x, y = (held[(4 * phase[held]).astype(int) == quarter] for held in (held_x, held_y))
        k = min(len(x), len(y))
        row = {"set": f"turbine, quarter {quarter + 1}", "seed": seed, "rows": k}
        row["given"] = sample_w2(known.transform(z[x], circle(x)), z[y], k, seed)
        row["not given"] = sample_w2(plain.transform(z[x]), z[y], k, seed)
        row["identity"] = sample_w2(z[x], z[y], k, seed)
        row["halves"] = sample_w2(z[y][: k // 2], z[y][k // 2 : k], k // 2, seed)
        rows.append(row)
    return rows


def main() -> None:
    """Parse the command line and print the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=DATA, type=Path, help="folder")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", help="append every row to this file, one JSON object a line")
    parser.add_argument("--quick", action="store_true", help="little training")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", module="sklearn")
    print(f"{platform.machine()}, python {platform.python_version()}")
    settings = {"max_iter": 50} if given.quick else {}
    for seed in range(given.seeds):
        rows = [gaussians(turning, seed, given.quick, settings) for turning in (False, True)]
        if (given.data / "gas_turbine.npz").exists():
            rows += turbine(given.data, seed, given.quick, settings)
        for row in rows:
            told = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
            print(", ".join(told), flush=True)
            if given.json:
                with open(given.json, "a") as file:
                    file.write(json_text(row) + "\n")


if __name__ == "__main__":
    main()
