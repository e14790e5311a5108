"""Is the density one? Twelve fits chosen to tempt a map to fold, and what their densities sum to.

    python benchmarks/integrals.py
    python benchmarks/integrals.py --settings '{"potential": "resnet"}'

Integrals by the trapezoid rule (1 and 2 columns, float64) on a grid that is fine around all centres
and where the flow's own samples are, and goes to 30 standard deviations; by importance sampling
(`flow.normalisation`) in more columns and where clusters are too thin for a grid. KL to the true
law on 20,000 fresh rows with its 95 % interval: negative beyond it would be a density above the
truth. -inf counts those rows, and samples, that have no density.
"""

import argparse
import dataclasses
import json
import time
import warnings
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import logsumexp

from otflow import OTFlow
from otflow.flow.normalisation import density_integral
from timing.table import table

_FRESH, _SAMPLES, _DRAWS = 20_000, 5_000, 2**15
_THIN = 5e-3
COLUMNS = {
    "law": "law",
    "d": "dim",
    "rows": "rows",
    "K": "n_steps",
    "alpha": "alpha",
    "integral": "integral",
    "by": "by",
    "KL, nats": "kl",
    "-inf rows": "lost",
    "samples without density": "bad",
    "seconds": "seconds",
}


@dataclasses.dataclass(frozen=True)
class Law:
    """Independent columns around centres on the diagonal, all of one scale."""

    name: str
    dim: int
    centres: tuple[float, ...]
    scale: float
    one: Any  # a distribution of scipy.stats

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n rows."""
        noise = self.one.rvs(size=(n, self.dim), random_state=rng)
        return self.scale * noise + rng.choice(self.centres, size=n)[:, None]

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Their log-density, nats."""
        parts = [
            self.one.logpdf((x - c) / self.scale).sum(axis=1) - self.dim * np.log(self.scale)
            for c in self.centres
        ]
        return logsumexp(parts, axis=0) - np.log(len(parts))

    def axis(self, reach: float, samples: np.ndarray) -> np.ndarray:
        """A grid on a line: fine at the centres and samples, out to `reach` on both sides."""
        fine = self.scale * np.sinh(np.linspace(-1, 1, 300) * np.arcsinh(reach / self.scale))
        coarse = np.linspace(-reach, reach, 401)
        near = self.scale * np.linspace(-8, 8, 321)
        parts = [coarse, *(c + line for c in self.centres for line in (fine, near))]
        quantiles = np.quantile(samples, np.linspace(0, 1, 801))
        middles = (quantiles[1:] + quantiles[:-1]) / 2
        found = np.unique(np.concatenate([*parts, quantiles, middles]))
        return found[np.abs(found) <= reach]


def quadrature(model: OTFlow, law: Law, reach: float) -> float:
    """The trapezoid rule in 1 or 2 columns."""
    samples = model.sample(20_000, random_state=2)
    lines = [law.axis(reach, column) for column in samples.T]
    weights = []
    for line in lines:
        width = np.diff(line, prepend=line[0], append=line[-1])
        weights.append((width[1:] + width[:-1]) / 2)
    if law.dim == 1:
        return float(np.exp(model.score_samples(lines[0][:, None])) @ weights[0])
    total = 0.0
    for x, w in zip(np.array_split(lines[0], 40), np.array_split(weights[0], 40), strict=True):
        grid = np.stack(np.meshgrid(x, lines[1], indexing="ij"), axis=-1).reshape(-1, 2)
        total += w @ np.exp(model.score_samples(grid)).reshape(len(x), -1) @ weights[1]
    return float(total)


NORMAL, HEAVY = stats.norm(), stats.t(3)
FITS = (
    (Law("two clusters, sd 0.001", 1, (-5, 5), 1e-3, NORMAL), 2000, 1, 1e4),
    (Law("Student, 2 degrees", 1, (0,), 1.0, stats.t(2)), 500, 2, 30.0),
    (Law("normal, few rows", 1, (0,), 1.0, NORMAL), 9, 8, 30.0),
    (Law("two clusters, sd 0.5", 2, (-5, 5), 0.5, NORMAL), 2000, 1, 30.0),
    (Law("two clusters, sd 0.05", 2, (-5, 5), 0.05, NORMAL), 2000, 2, 1.0),
    (Law("two clusters, sd 0.001", 2, (-5, 5), 1e-3, NORMAL), 2000, 4, 1e3),
    (Law("three clusters, sd 0.01", 2, (-5, 0, 5), 0.01, NORMAL), 2000, 8, 1e4),
    (Law("normal, few rows", 2, (0,), 1.0, NORMAL), 9, 2, 30.0),
    (Law("Student, 3 degrees", 2, (0,), 1.0, HEAVY), 1000, 4, 100.0),
    (Law("two clusters, sd 0.1", 5, (-2, 2), 0.1, NORMAL), 2000, 4, 100.0),
    (Law("Student, 3 degrees, few rows", 5, (0,), 1.0, HEAVY), 40, 2, 30.0),
    (Law("two clusters, sd 0.5", 11, (-2, 2), 0.5, NORMAL), 2000, 4, 1e3),
)


def run(law: Law, n: int, n_steps: int, alpha: float, settings: dict[str, Any]) -> dict[str, Any]:
    """Fit and measure."""
    rng, start = np.random.default_rng(0), time.perf_counter()
    x = law.draw(n, rng)
    options = {"n_steps": n_steps, "alpha": alpha, "max_iter": 1000, "random_state": 0}
    options |= {"verbose": False, "dtype": "float64" if law.dim <= 2 else "float32"}
    model = OTFlow(**options | settings).fit(x)
    if law.dim == 1 or (law.dim == 2 and law.scale > _THIN):
        found, by = f"{quadrature(model, law, 30 * x.std()):.5f}", "quadrature"
    else:
        z = model.standardizer_.forward(x)
        found, by = str(density_integral(model.flow_, z, draws=_DRAWS)), "sampling"
    fresh = law.draw(_FRESH, rng)
    scores = model.score_samples(fresh)
    excess = (law.log_prob(fresh) - scores)[np.isfinite(scores)]
    own = model.score_samples(model.sample(_SAMPLES, random_state=1))
    return {
        "law": law.name,
        "dim": law.dim,
        "rows": n,
        "n_steps": n_steps,
        "alpha": f"{alpha:g}",
        "integral": found,
        "by": by,
        "kl": f"{excess.mean():.3f} +- {1.96 * excess.std() / len(excess) ** 0.5:.2g}",
        "lost": int((~np.isfinite(scores)).sum()),
        "bad": int((~np.isfinite(own)).sum()),
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    """Parse the command line, fit, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", default="{}", help="JSON: settings of OTFlow to change")
    parser.add_argument("--only", type=int, help="number of one fit, from 0")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    chosen = FITS if given.only is None else FITS[given.only : given.only + 1]
    rows = []
    for fit in chosen:
        rows.append(run(*fit, json.loads(given.settings)))
        print(rows[-1], flush=True)
    print(table(rows, COLUMNS))


if __name__ == "__main__":
    main()
