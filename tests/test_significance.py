"""Differences that are real, and those that are luck."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from rejoinder.significance import compare, interval, sign_test


@pytest.mark.parametrize(("wins", "losses"), list(product(range(6), repeat=2)))
def test_the_sign_test_counts_all_splits_that_are_as_uneven(wins: int, losses: int) -> None:
    n = wins + losses
    splits = [sum(throws) for throws in product((0, 1), repeat=n)]
    wanted = sum(min(k, n - k) <= min(wins, losses) for k in splits) / len(splits)
    assert sign_test(wins, losses) == pytest.approx(wanted)
    assert sign_test(losses, wins) == sign_test(wins, losses)


def test_large_counts_do_not_overflow() -> None:
    assert sign_test(5000, 5000) == pytest.approx(1.0, abs=0.01)
    assert sign_test(5300, 4700) == pytest.approx(math.erfc(599 / 100 / math.sqrt(2)), rel=0.05)
    assert sign_test(9000, 10) < 1e-300 or sign_test(9000, 10) == 0.0


def test_a_model_is_not_better_than_itself() -> None:
    found = compare([1, 0, 1], [1, 0, 1], [0, 0, 1])
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert (found.p, found.better_draws, found.only_a, found.only_b) == (1.0, 0.0, 0, 0)


def test_which_is_which() -> None:
    found = compare([0] * 50, [1] * 40 + [0] * 10, np.arange(50))
    assert (found.a, found.b, found.only_a, found.only_b) == (0, 0.8, 0, 40)
    assert 0 < found.low < 0.8 < found.high < 1
    assert found.better_draws == 1
    assert found.p == pytest.approx(2 * 0.5**40)
    turned = compare([1] * 40 + [0] * 10, [0] * 50, np.arange(50))
    assert turned.difference == -found.difference
    assert "B - A = +0.8000" in str(found)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """A share of 0.7 drawn 200 times, 100 examples each."""
    chance = np.random.default_rng(0)
    found = 0
    for seed in range(100):
        low, high = interval(chance.random(200) < 0.7, np.arange(200), seed)
        found += low <= 0.7 <= high
    assert 88 <= found <= 99


def test_examples_of_one_dialogue_count_as_one_draw() -> None:
    """Ten dialogues of ten equal examples know as much as ten examples."""
    values = np.repeat(np.arange(10) % 2, 10)
    apart = interval(values, np.arange(100))
    together = interval(values, np.repeat(np.arange(10), 10))
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])
    alone = interval(np.arange(10) % 2, np.arange(10))
    assert together == pytest.approx(alone)


def test_groups_may_have_any_numbers() -> None:
    assert interval([1, 0, 1, 1], [7, 7, 3, 3]) == interval([1, 1, 1, 0], [0, 0, 1, 1])
