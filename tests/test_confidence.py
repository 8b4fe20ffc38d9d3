"""Confidence: what it looks at, and that its fit is the best one."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rejoinder.confidence import LARGEST_Z, Confidence, Crowd, fit

SURE = Confidence(-1.0, (0.1, 0.5, 0.3))
scores_lists = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=30)


def of(scores: list[float]) -> float:
    return SURE.of(Crowd.of(np.array(scores, dtype=np.float32)))


@given(scores_lists, st.randoms())
def test_order_does_not_matter(scores: list[float], chance: Random) -> None:
    mixed = list(scores)
    chance.shuffle(mixed)
    assert of(mixed) == pytest.approx(of(scores), rel=1e-9)
    assert 0 <= of(scores) <= 1


@given(scores_lists.filter(lambda scores: len(scores) > 1))
def test_features_are_top_margin_and_z(scores: list[float]) -> None:
    ordered = sorted(scores, reverse=True)
    mean = sum(scores) / len(scores)
    spread = (sum((score - mean) ** 2 for score in scores) / len(scores)) ** 0.5
    z = min((ordered[0] - mean) / max(spread, 1e-6), LARGEST_Z)
    found = Crowd.of(np.array(scores)).features()
    np.testing.assert_allclose(
        found, [ordered[0], ordered[0] - ordered[1], z], atol=1e-6, rtol=1e-6
    )


def test_a_single_candidate_has_no_margin() -> None:
    assert Crowd.of(np.array([3.0])).features().tolist() == [3.0, 0.0, 0.0]


def test_equal_scores_are_no_reason_to_be_sure() -> None:
    assert Crowd.of(np.full(50, 7.0)).features().tolist() == [7.0, 0.0, 0.0]


def test_z_has_an_end() -> None:
    scores = np.zeros(10_000)
    scores[17] = 1.0
    assert Crowd.of(scores).features()[2] == LARGEST_Z


def test_logits_beyond_all_measure_do_not_overflow() -> None:
    assert Confidence(1e6, (0, 0, 0)).of(Crowd.of(np.array([1.0]))) == pytest.approx(1)
    assert Confidence(-1e6, (0, 0, 0)).of(Crowd.of(np.array([1.0]))) == pytest.approx(0, abs=1e-20)


def drawn(
    n: int, bias: float, weights: list[float]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Rows, and answers that a logistic model with these weights would give."""
    chance = np.random.default_rng(0)
    rows = chance.normal([5, 2, 3], [4, 1, 0.5], (n, 3))
    p = 1 / (1 + np.exp(-(bias + rows @ weights)))
    return rows, chance.random(n) < p


def test_fit_finds_the_logistic_model_that_the_data_came_from() -> None:
    found = fit(*drawn(40_000, -3.0, [0.3, 0.8, -0.2]))
    assert found.bias == pytest.approx(-3.0, abs=0.25)
    assert found.weights == pytest.approx((0.3, 0.8, -0.2), abs=0.08)


def test_fit_is_at_the_top_of_the_likelihood() -> None:
    rows, right = drawn(300, -1.0, [0.2, 0.5, 0.1])
    found = fit(rows, right, ridge=1e-9)

    def likelihood(bias: float, weights: NDArray[np.float64]) -> float:
        logits = bias + rows @ weights
        return float(np.where(right, logits, 0).sum() - np.logaddexp(0, logits).sum())

    best = likelihood(found.bias, np.array(found.weights))
    for step in (1e-3, -1e-3):
        assert likelihood(found.bias + step, np.array(found.weights)) < best
        for axis in range(3):
            moved = np.array(found.weights)
            moved[axis] += step
            assert likelihood(found.bias, moved) < best


@pytest.mark.parametrize("right", [np.ones(50, dtype=bool), np.zeros(50, dtype=bool)])
def test_fit_where_all_answers_are_alike(right: NDArray[np.bool_]) -> None:
    rows, _ = drawn(50, 0, [0, 0, 0])
    found = fit(rows, right)
    logits = found.bias + rows @ np.array(found.weights)
    assert ((logits > 3) == right).all()


def test_fit_where_one_feature_says_it_all() -> None:
    rows, _ = drawn(500, 0, [0, 0, 0])
    found = fit(rows, rows[:, 1] > 2)
    logits = found.bias + rows @ np.array(found.weights)
    assert np.isfinite(logits).all()
    assert ((logits > 0) == (rows[:, 1] > 2)).mean() > 0.99


def test_fit_where_a_feature_never_changes() -> None:
    rows, right = drawn(500, -1.0, [0.2, 0.5, 0.1])
    rows[:, 2] = 4.0
    found = fit(rows, right)
    assert np.isfinite([found.bias, *found.weights]).all()
    assert abs(found.weights[2]) < 1e-3
