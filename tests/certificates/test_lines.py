"""Labels: proved where the draws bear it and no map folds, else estimated with the reason."""

import numpy as np
import pytest

from otflow.certificates import lines as write
from otflow.certificates.bracket import bracket
from otflow.certificates.penalty import PenaltyGap
from otflow.flow.normalisation import Integral

RNG = np.random.default_rng(0)
LIGHT, HEAVY = RNG.exponential(size=2000), RNG.pareto(2.5, 2000) ** 2
PROVED, ESTIMATED = "proved (95 %)", "estimated"
FOLDED = Integral(1.37, 0.01)


@pytest.mark.parametrize(
    ("values", "label", "reason"),
    [
        (LIGHT, PROVED, ""),
        (HEAVY, ESTIMATED, "; estimated only, since the tail index may be"),
        (-HEAVY, ESTIMATED, "; estimated only, since the tail index may be"),
        (LIGHT[:399], ESTIMATED, "; estimated only, since 399 draws, fewer than 400,"),
        (np.append(LIGHT, np.inf), ESTIMATED, "; estimated only, since the tail index may be inf"),
    ],
    ids=["light", "heavy", "heavy below", "few", "infinite"],
)
def test_a_mean(values, label, reason):
    line = write.mean_line("a", values, "1", "text", 0.95)
    assert line.label == label
    assert line.explanation.startswith("text" + reason)
    assert (line.explanation == "text") is (label == PROVED)


def test_the_bracket_and_its_excess_are_labelled_apart():
    def labels(half_squared, gap):
        return [line.label for line in write.transport_lines(bracket(half_squared, gap))]

    assert labels(LIGHT, 0.01 * LIGHT) == labels(LIGHT, None) == [PROVED] * 3
    assert labels(HEAVY, 0.01 * LIGHT) == [ESTIMATED, ESTIMATED, PROVED]
    assert labels(LIGHT, 0.01 * HEAVY) == [ESTIMATED] * 3


@pytest.mark.parametrize("integral", [None, Integral(1.0, 0.01), FOLDED])
def test_a_kl_is_proved_only_of_a_map_that_cannot_fold(integral):
    kl, w2 = write.distance_lines(LIGHT, 0, False, True, integral, 0.95)
    assert kl.label == w2.label == (PROVED if integral is None else ESTIMATED)
    assert ("its density sums to 1" in kl.explanation) is (integral is not None)


def test_the_lower_bound_of_j_does_not_rest_on_the_density():
    found = PenaltyGap(1.0, (0.9, 1.1), 0.5, 0.6)
    own, lower, gap = write.penalty_lines(found, 10.0, FOLDED, 0.95)
    assert (own.label, lower.label, gap.label) == (ESTIMATED, PROVED, ESTIMATED)
    assert "sums to 1.37 +- 0.02" in own.explanation
    assert {line.label for line in write.penalty_lines(found, 10.0, None, 0.95)} == {PROVED}
    doubted = PenaltyGap(1.0, (0.9, 1.1), 0.5, 0.6, ("", "its tail", "its tail"))
    found = [line.label for line in write.penalty_lines(doubted, 10.0, None, 0.95)]
    assert found == [PROVED, ESTIMATED, ESTIMATED]
