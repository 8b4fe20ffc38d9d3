"""Does a probability mean what it says? Measured on answers that it was not fitted on.

Calibration asks whether of all answers given with 70 % seven in ten are right; separation whether
right ones have more than wrong ones; risk over coverage what share is wrong if only the surest are
given (Geifman and El-Yaniv 2017, arXiv:1705.08500). Letters: R answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
BINS = 10  # of equal width, from 0 to 1


@dataclass(frozen=True)
class Bin:
    """The answers whose probability lies in one bin."""

    said: float  # mean probability
    right: float  # share that is right
    count: int


def bins_of(probability: Floats, right: Flags, bins: int = BINS) -> list[Bin]:
    """Answers sorted into bins of equal width, empty ones left out: (R,), (R,) -> low to high."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    found = []
    for number in np.unique(place):
        inside = place == number
        said, share = float(probability[inside].mean()), float(right[inside].mean())
        found.append(Bin(said, share, int(inside.sum())))
    return found


def expected_error(probability: Floats, right: Flags, bins: int = BINS) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over equal bins.

    Chance alone makes it larger than 0: about 0.03 with a thousand answers, 0.1 with a hundred.
    """
    parts = bins_of(probability, right, bins)
    return sum(one.count * abs(one.said - one.right) for one in parts) / max(1, len(right))


def separation(probability: Floats, positive: Flags) -> float:
    """Area under the ROC curve: how often a positive has the higher value; ties count half."""
    high, low = probability[positive], probability[~positive]
    if not len(high) or not len(low):
        return 0.5
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, "left")
    upto = np.searchsorted(ordered, high, "right")
    return float((below + 0.5 * (upto - below)).mean() / len(low))


def risk_over_coverage(probability: Floats, right: Flags) -> Floats:
    """Share of wrong answers among the 1, 2, ... R surest: (R,), (R,) -> (R,).

    Equal probabilities count as their mean, so order changes nothing.
    """
    _, place = np.unique(-probability, return_inverse=True)  # surest first
    wrong = np.bincount(place, weights=~right) / np.bincount(place)
    return np.asarray(wrong[np.sort(place)].cumsum() / np.arange(1, len(right) + 1))
