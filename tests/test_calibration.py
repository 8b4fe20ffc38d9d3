"""Confidence is fitted on pools of many sizes, with and without a right reply."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rejoinder.calibration import ask, expected_error, fit_and_report, separation
from rejoinder.errors import DataError
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Example, Message

Make = Callable[..., TextRanker]
EXAMPLES = [
    Example(Dialogue((Message("user", f"do you like number {i} ?"),)), (f"i like {i} {i * i} .",))
    for i in range(120)
]


@pytest.mark.parametrize("kind", ["bi", "cross"])
def test_half_of_the_pools_lack_the_right_reply(make: Make, kind: str) -> None:
    asked = ask(make(kind=kind), EXAMPLES)
    assert 0.3 < asked.present.mean() < 0.7
    assert not (asked.right & ~asked.present).any()
    assert asked.features.shape == (len(asked.right), 3)
    assert len(set(asked.sizes.tolist())) > 1


def test_the_same_seed_asks_the_same(make: Make) -> None:
    one, two = (ask(make(kind="bi"), EXAMPLES, seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.features, two.features)


def test_a_fitted_confidence_is_a_probability(make: Make) -> None:
    report = fit_and_report(make(kind="poly"), EXAMPLES)
    for row in ask(make(kind="poly"), EXAMPLES[:25]).features:
        assert 0 <= report.confidence.of_features(row) <= 1
    assert 0 <= report.error <= 1


def test_too_little_to_fit_on(make: Make) -> None:
    with pytest.raises(DataError, match="expected 20 or more"):
        fit_and_report(make(kind="bi"), EXAMPLES[:5])


def test_expected_error_by_hand() -> None:
    probability = np.array([0.05, 0.05, 0.95, 0.95])
    assert expected_error(probability, np.array([False, False, True, True])) == pytest.approx(0.05)
    assert expected_error(probability, np.array([True, True, False, False])) == pytest.approx(0.95)


def test_separation_by_hand() -> None:
    values = np.array([0.9, 0.5, 0.5, 0.1])
    assert separation(values, np.array([True, True, False, False])) == pytest.approx(3.5 / 4)
    assert separation(values, np.array([True] * 4)) == 0.5
