"""How training went, read from its history: did it end too early, did it learn rows by heart?"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

_LEAST = 4  # validations behind a slope
_LEVEL = 0.05  # of the test that it falls: four in falling order have 1 / 24
_FALL = 0.01  # nats over the last quarter of a run: what more steps must promise
_RISE = 0.02  # nats above the kept weights that count as learned by heart
_TAIL = 3  # validations that the end of a run is the mean of


@dataclasses.dataclass(frozen=True)
class Course:
    """The end of a run of first-order steps.

    Attributes:
        status: why it stopped, as in `otflow.training.TrainingResult`.
        kept: steps behind the weights that were kept.
        last: steps taken.
        slope: of the validation nll over the last quarter of the run, nats per 1,000 steps; NaN
            with fewer than four validations, or where natural-gradient steps came after.
        falling: the run ended by its number of steps while the nll fell over that quarter
            (Kendall's rank test, 5 %), at a slope worth 0.01 nats or more over as many steps again.
        rise: of the validation nll from the kept weights to the end, nats, while that of the
            training batches fell; 0 where it did not.
    """

    status: str
    kept: int
    last: int
    slope: float
    falling: bool
    rise: float

    @staticmethod
    def of(
        history: Mapping[str, Sequence[float]], status: str, kept: int, polished: bool = False
    ) -> "Course":
        """That of a history; `polished`: natural-gradient steps went on from there."""
        steps, nll = (np.asarray(history[name], float) for name in ("iteration", "val_nll"))
        slope, falling = _slope(steps, nll)
        if polished:
            slope, falling = np.nan, False
        rise = 0.0
        if kept in steps.tolist() and "train_nll" in history:
            rise = _rise(nll, np.asarray(history["train_nll"], float), steps.tolist().index(kept))
        ended = int(steps[-1])
        return Course(status, int(kept), ended, slope, falling and status == "max_iter", rise)

    @property
    def warning(self) -> str | None:
        """What `fit` warns of: more steps would help; None where that is not seen."""
        return f"{self.findings()[0]}." if self.falling else None

    def findings(self) -> tuple[str, ...]:
        """What a user can do better, one sentence each."""
        found = []
        if self.falling:
            found.append(
                f"max_iter: the validation nll was still falling when training stopped at step "
                f"{self.last}, by {-self.slope:.2g} nats per 1,000 steps: raise max_iter"
            )
        if self.rise:
            found.append(
                f"overfits after step {self.kept}: the held-out nll then rose by {self.rise:.2g} "
                "nats while that of the training rows fell; the weights of that step are kept. "
                "More rows, a smaller width or a larger weight_decay helps"
            )
        return tuple(found)


def _slope(steps: Float[np.ndarray, " k"], nll: Float[np.ndarray, " k"]) -> tuple[float, bool]:
    """Theil and Sen's over the last quarter, four points or more; whether it matters."""
    number = max(_LEAST, 1 + len(steps) // 4)
    x, y = steps[-number:], nll[-number:]
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if len(x) < _LEAST:
        return np.nan, False
    slope = float(stats.theilslopes(y, x).slope)
    falls = stats.kendalltau(x, y, alternative="less").pvalue < _LEVEL  # NaN where y is constant
    return 1000 * slope, bool(falls and -slope * (x[-1] - x[0]) >= _FALL)


def _rise(val: Float[np.ndarray, " k"], train: Float[np.ndarray, " k"], kept: int) -> float:
    """How far the validation nll is above that of the kept weights while training went on."""
    if kept + _TAIL >= len(val):
        return 0.0
    rise = float(np.mean(val[-_TAIL:]) - val[kept])
    fell = np.mean(train[-_TAIL:]) < train[kept]
    return rise if rise > _RISE and fell else 0.0
