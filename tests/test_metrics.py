"""Ranks, hits, MRR, Wilson's interval and F1, against numbers worked out by hand."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.metrics import hits_at, interval, rank_of_best, reciprocal_rank, word_f1
from rejoinder.words import words

NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "right", "rank"),
    [
        ([3, 2, 1], [1, 0, 0], 1),
        ([3, 2, 1], [0, 0, 1], 3),
        ([1, 1, 1], [1, 0, 0], 3),  # ties count against
        ([1, 1, 1], [0, 0, 1], 3),
        ([2, 2, 1], [1, 1, 0], 1),  # other right ones do not count
        ([3, 2, 1], [0, 1, 1], 2),  # the best of several
        ([3, 3, 1], [0, 1, 1], 2),
        ([5], [1], 1),
        ([1, NAN, 2], [0, 1, 0], 3),  # NaN is never right
        ([1, NAN, 2], [0, 0, 1], 2),
        ([NAN, NAN], [1, 0], 2),
    ],
)
def test_rank_of_the_best_right_candidate(scores: list[float], right: list[int], rank: int) -> None:
    assert rank_of_best(scores, np.array(right, dtype=bool)) == rank


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1))
def test_rank_is_the_place_in_the_worst_order_of_equal_scores(
    pairs: list[tuple[int, bool]],
) -> None:
    pairs = [*pairs, (2, True)]
    ordered = sorted((-score, right) for score, right in pairs)  # wrong before right
    firsts = [right for _, right in ordered].index(True)
    scores, right = zip(*pairs, strict=True)
    assert rank_of_best(scores, right) == 1 + firsts


def test_hits_and_mrr_by_hand() -> None:
    ranks = [1, 2, 4, 10, 1]
    assert [hits_at(ranks, k) for k in (1, 2, 5, 10)] == [0.4, 0.6, 0.8, 1.0]
    assert reciprocal_rank(ranks) == pytest.approx((1 + 0.5 + 0.25 + 0.1 + 1) / 5)


@pytest.mark.parametrize(
    ("ones", "n", "low", "high"),
    [  # Newcombe 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_interval_is_wilsons(ones: int, n: int, low: float, high: float) -> None:
    assert interval([1] * ones + [0] * (n - ones)) == pytest.approx((low, high), abs=5e-5)
    mirrored = interval([0] * ones + [1] * (n - ones))
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_no_values_say_nothing() -> None:
    assert interval([]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat, an OWL & a bee!", ["cat", "owl", "bee"]),
        ("theory anagram Aa", ["theory", "anagram", "aa"]),  # only whole words are articles
        ("don't_stop-now", ["don", "t", "stop", "now"]),
        ("!\"#$%&()*+,-./:;<=>?@[]\\^`{|}~_'", []),
        ("  two\tspaces\n", ["two", "spaces"]),
    ],
)
def test_words_as_parlai_counts_them(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "replies", "f1"),
    [
        ("i like tea", ["i like tea"], 1.0),
        ("I LIKE the tea!", ["i like tea"], 1.0),
        ("i like tea", ["you like coffee"], 1 / 3),
        ("tea tea tea", ["tea"], 0.5),  # precision 1/3, recall 1
        ("i like tea", ["nothing", "i like"], 0.8),  # the best of several
        ("i like tea", [], 0.0),
        ("the", ["a"], 0.0),  # both empty
        ("", [""], 0.0),
    ],
)
def test_word_f1_by_hand(text: str, replies: list[str], f1: float) -> None:
    assert word_f1(text, replies) == pytest.approx(f1)


def slow_f1(text: str, reply: str) -> float:
    """F1 from the description in words: ParlAI's metrics, section "f1"."""

    def normalise(raw: str) -> list[str]:
        raw = raw.lower()
        for mark in "!\"#$%&()*+,-./:;<=>?@[]\\^`{|}~_'":
            raw = raw.replace(mark, " ")
        return re.sub(r"\b(a|an|the)\b", " ", raw).split()

    guess, gold = normalise(text), normalise(reply)
    common = Counter(guess) & Counter(gold)
    same = sum(common.values())
    if same == 0:
        return 0.0
    precision, recall = same / len(guess), same / len(gold)
    return 2 * precision * recall / (precision + recall)


sentences = st.lists(
    st.sampled_from(["a", "the", "tea", "Tea!", "an", "x-y", "'s", "i", "_", "über"])
).map(" ".join)


@given(sentences, st.lists(sentences, min_size=1, max_size=3))
def test_word_f1_equals_the_slow_one(text: str, replies: list[str]) -> None:
    assert word_f1(text, replies) == pytest.approx(max(slow_f1(text, reply) for reply in replies))
