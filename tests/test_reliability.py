"""Calibration, separation and risk: by hand, and for any order of the answers."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.reliability import bins_of, expected_error, risk_over_coverage, separation

answers = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]), st.booleans()), min_size=1)


def test_expected_error_by_hand() -> None:
    probability = np.array([0.05, 0.05, 0.95, 0.95])
    assert expected_error(probability, np.array([False, False, True, True])) == pytest.approx(0.05)
    assert expected_error(probability, np.array([True, True, False, False])) == pytest.approx(0.95)


def test_separation_by_hand() -> None:
    values = np.array([0.9, 0.5, 0.5, 0.1])
    assert separation(values, np.array([True, True, False, False])) == pytest.approx(3.5 / 4)
    assert separation(values, np.array([True] * 4)) == 0.5


def test_risk_by_hand() -> None:
    right = np.array([True, False, True, False])
    found = risk_over_coverage(np.array([0.9, 0.8, 0.7, 0.1]), right)
    assert found.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    alike = risk_over_coverage(np.full(4, 0.3), right)
    assert alike.tolist() == pytest.approx([0.5] * 4), "nobody knows which of equal ones is first"


@given(answers, st.randoms())
def test_order_changes_nothing(given: list[tuple[float, bool]], chance: Random) -> None:
    mixed = list(given)
    chance.shuffle(mixed)
    (a, b), (c, d) = (map(np.array, zip(*one, strict=True)) for one in (given, mixed))
    assert expected_error(a, b) == pytest.approx(expected_error(c, d))
    assert risk_over_coverage(a, b) == pytest.approx(risk_over_coverage(c, d))


@given(answers)
def test_bins_hold_all_answers_once(given: list[tuple[float, bool]]) -> None:
    probability, right = map(np.array, zip(*given, strict=True))
    bins = bins_of(probability, right)
    assert sum(one.count for one in bins) == len(given)
    assert [one.said for one in bins] == sorted(one.said for one in bins)
    assert sum(one.count * one.right for one in bins) == pytest.approx(right.sum())
    assert sum(one.count * one.said for one in bins) == pytest.approx(probability.sum())


@given(answers)
def test_no_order_has_less_risk_than_the_perfect_one(given: list[tuple[float, bool]]) -> None:
    probability, right = map(np.array, zip(*given, strict=True))
    found, perfect = (risk_over_coverage(p, right) for p in (probability, right.astype(float)))
    assert (perfect <= found + 1e-12).all()
    assert found[-1] == pytest.approx(1 - right.mean()), "at full coverage there is no choice"


@pytest.mark.parametrize(("count", "largest"), [(100, 0.15), (1000, 0.05), (100_000, 0.005)])
def test_a_calibrated_probability_has_an_error_of_chance_alone(count: int, largest: float) -> None:
    chance = np.random.default_rng(0)
    probability = chance.random(count)
    assert 0 < expected_error(probability, chance.random(count) < probability) < largest
