"""Is one ranker better than another, or was it luck? Both are measured on the same examples.

Paired bootstrap: draw the examples anew, with replacement, many times, and see how the difference
varies. Examples of one dialogue resemble each other, so whole dialogues are drawn. Sign test: of
the examples that only one of the two got right, each had it with probability one half if they are
equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

DRAWS = 10_000


@dataclass(frozen=True)
class Comparison:
    """The difference of two rankers in one figure, B minus A."""

    a: float
    b: float
    difference: float
    low: float  # 95 % interval of the difference
    high: float
    better_draws: float  # share of bootstrap draws in which B is better than A
    only_a: int  # examples on which A is better
    only_b: int
    p: float  # of the two-sided sign test

    def __str__(self) -> str:
        return (
            f"A {self.a:.4f}, B {self.b:.4f}, B - A = {self.difference:+.4f} (95 % interval "
            f"{self.low:+.4f} to {self.high:+.4f}); B better on {self.only_b}, worse on "
            f"{self.only_a} examples (sign test p = {self.p:.2g})"
        )


def compare(a: ArrayLike, b: ArrayLike, groups: ArrayLike, seed: int = 0) -> Comparison:
    """Two rankers' values of each example, and the dialogue that each example belongs to."""
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    spans = _drawn(second - first, np.asarray(groups), seed)
    only_a, only_b = int((first > second).sum()), int((second > first).sum())
    low, high = np.quantile(spans, [0.025, 0.975])
    return Comparison(
        a=float(first.mean()),
        b=float(second.mean()),
        difference=float((second - first).mean()),
        low=float(low),
        high=float(high),
        better_draws=float((spans > 0).mean()),
        only_a=only_a,
        only_b=only_b,
        p=sign_test(only_a, only_b),
    )


def interval(values: ArrayLike, groups: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of a mean, dialogues drawn whole."""
    low, high = np.quantile(
        _drawn(np.asarray(values, dtype=float), np.asarray(groups), seed), [0.025, 0.975]
    )
    return float(low), float(high)


def _drawn(values: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Means of `values` over dialogues drawn with replacement: -> (DRAWS,)"""
    _, group = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(group, weights=values), np.bincount(group)
    chance = np.random.default_rng(seed)
    means = np.empty(DRAWS)
    for i in range(DRAWS):
        counts = np.bincount(chance.integers(len(sums), size=len(sums)), minlength=len(sums))
        means[i] = counts @ sums / (counts @ sizes)
    return means


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p: the probability of a split at least so uneven, if both sides are as likely."""
    n, k = wins + losses, min(wins, losses)
    if not n:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k + 1)]
    return min(1.0, 2 * sum(math.exp(one - n * math.log(2)) for one in logs))
