"""Confidence is fitted on pools of many sizes, with and without a right reply."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rejoinder.calibration import ask, fit_and_report
from rejoinder.confidence import fit
from rejoinder.errors import DataError
from rejoinder.ranker import TextRanker
from rejoinder.reliability import expected_error, risk_over_coverage, separation
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


def test_no_example_is_measured_by_a_fit_that_saw_it(make: Make) -> None:
    """Slow reference: fit on one half of the examples, ask pool after pool of the other."""
    ranker = make(kind="bi")
    asked = ask(ranker, EXAMPLES)
    sure = np.empty(len(asked.right))
    for half in (range(60), range(60, 120)):
        inside = np.isin(asked.examples, list(half))
        other = fit(asked.features[~inside], asked.right[~inside])
        sure[inside] = [other.of_features(row) for row in asked.features[inside]]
    found = fit_and_report(ranker, EXAMPLES)
    assert found.error == pytest.approx(expected_error(sure, asked.right))
    assert found.separation == pytest.approx(separation(sure, asked.right))
    assert found.present == pytest.approx(separation(sure, asked.present))
    assert found.area == pytest.approx(risk_over_coverage(sure, asked.right).mean())
    whole = fit(asked.features, asked.right)
    assert found.confidence == whole


@pytest.mark.parametrize(("kind", "sizes"), [("bi", [20, 100]), ("cross", [5, 10, 20])])
def test_every_size_of_pools_is_told_apart(make: Make, kind: str, sizes: list[int]) -> None:
    """120 replies allow pools of 20 and 100, not of 1,000."""
    found = fit_and_report(make(kind=kind), EXAMPLES)
    assert [one.size for one in found.sizes] == sizes
    assert [one.pools for one in found.sizes] == [120] * len(sizes)
    assert found.pools == sum(one.pools for one in found.sizes)
    values = found.as_json()
    for one in found.sizes:
        assert values[f"expected_calibration_error@{one.size}"] == one.error
    assert found.best_area <= found.area <= 1
    assert sum(one.count for one in found.bins) == found.pools
    assert found.risk[-1][0] == 1
    assert found.risk[-1][1] == pytest.approx(
        1 - sum(one.right * one.pools for one in found.sizes) / found.pools
    )
