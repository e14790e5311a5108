"""Do intervals of 95 % hold, and those called proved? Means of light and heavy laws, by rows.

    python benchmarks/coverage.py            # 4,000 samples a cell: about 10 minutes on one core
    python benchmarks/coverage.py --quick    # 400

Each law X, and 1/2 X^2, as the cost of a transport is. A cell says how many of 100 two-sided
intervals of `certificates.bounds` hold the mean; in brackets how many of 100 are called proved and,
of those, how many hold. Student's interval is beside it. A cell is bold where more than 1 % of all
samples are called proved and significantly fewer than 94 % of those hold: with 400 rows and a far
cluster of 1 %, which 1.8 % of the samples miss.
"""

import argparse
import dataclasses
import math
import platform
from collections.abc import Callable

import numpy as np
from scipy import stats

from otflow.certificates.bounds import HEAVIEST, LEAST, upper_bounds
from timing.table import table

ROWS = (40, 100, 400, 2000, 10_000)
LEVEL = 0.975
_PROMISED, _RARE = 0.94, 0.01
_NUMBERS = 2_000_000  # drawn at once


@dataclasses.dataclass(frozen=True)
class Law:
    """A variable, its mean and that of its square."""

    name: str
    draw: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
    mean: float
    square: float


def _lognormal(sigma: float) -> Law:
    return Law(
        f"lognormal(0, {sigma:g})",
        lambda rng, size: rng.lognormal(0, sigma, size),
        math.exp(sigma**2 / 2),
        math.exp(2 * sigma**2),
    )


def _clusters(share: float) -> Law:
    return Law(
        f"N(0, 1), {share:.0%} at 10",
        lambda rng, size: rng.standard_normal(size) + 10.0 * (rng.random(size) < share),
        10 * share,
        1 + 100 * share,
    )


LAWS = (
    Law("normal", lambda rng, size: rng.standard_normal(size), 0, 1),
    Law("uniform(-1, 1)", lambda rng, size: rng.uniform(-1, 1, size), 0, 1 / 3),
    Law("exponential", lambda rng, size: rng.exponential(size=size), 1, 2),
    _lognormal(0.5),
    _lognormal(1.0),
    _lognormal(1.5),
    Law("t, 5", lambda rng, size: rng.standard_t(5, size), 0, 5 / 3),
    Law("t, 3", lambda rng, size: rng.standard_t(3, size), 0, 3),
    Law("Pareto, 2.5", lambda rng, size: rng.pareto(2.5, size) + 1, 5 / 3, 5),
    _clusters(0.05),
    _clusters(0.02),
    _clusters(0.01),
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """Of so many samples: how many intervals held, were called proved, did both; Student's held."""

    samples: int
    held: int
    proved: int
    both: int
    student: int

    @property
    def broken(self) -> bool:
        """More than a few are called proved, and fewer of those hold than promised."""
        expected = _PROMISED * self.proved
        error = math.sqrt(expected * (1 - _PROMISED))
        return self.proved > _RARE * self.samples and self.both < expected - 2.5 * error

    def __str__(self) -> str:
        text = f"{100 * self.held / self.samples:.1f}"
        if self.proved:
            share, kept = self.proved / self.samples, self.both / self.proved
            text += f" ({100 * share:.1f}: {100 * kept:.1f})"
        return f"**{text}**" if self.broken else text


def measure(law: Law, squared: bool, n: int, samples: int, seed: int) -> Cell:
    """One cell."""
    rng, counts = np.random.default_rng((seed, n)), np.zeros(4, int)
    truth = law.square / 2 if squared else law.mean
    most = max(_NUMBERS // n, 1)
    for start in range(0, samples, most):
        values = law.draw(rng, (min(most, samples - start), n))
        if squared:
            values = 0.5 * values**2
        (high, above), (low, below) = upper_bounds(values, LEVEL), upper_bounds(-values, LEVEL)
        held = (-low <= truth) & (truth <= high)
        proved = (np.maximum(above, below) < HEAVIEST) & (n >= LEAST)
        error = values.std(axis=1, ddof=1) / math.sqrt(n)
        student = np.abs(values.mean(axis=1) - truth) <= stats.t.ppf(LEVEL, n - 1) * error
        counts += [mask.sum() for mask in (held, proved, held & proved, student)]
    return Cell(samples, *map(int, counts))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="400 samples a cell, n up to 2,000")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    samples, sizes = (400, ROWS[:-1]) if given.quick else (4000, ROWS)
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {samples} samples a cell")
    for squared in (False, True):
        rows = []
        for law in LAWS:
            cells = {n: measure(law, squared, n, samples, given.seed) for n in sizes}
            student = ", ".join(f"{100 * c.student / samples:.0f}" for c in cells.values())
            rows.append({"law": law.name, "student": student} | {str(n): cells[n] for n in sizes})
        heading = "1/2 X^2, X" if squared else "X"
        columns = {heading: "law"} | {f"n = {n}": str(n) for n in sizes}
        print(table(rows, columns | {"Student's": "student"}), flush=True)


if __name__ == "__main__":
    main()
