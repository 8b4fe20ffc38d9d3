"""Maximal marginal relevance: the best first, then what is good and different."""

from __future__ import annotations

import torch

from rejoinder.diversity import diverse, vector_likeness, word_likeness


def test_a_twin_of_the_best_comes_late() -> None:
    scores = torch.tensor([1.0, 0.99, 0.8, 0.0])
    likeness = torch.eye(4)
    likeness[0, 1] = likeness[1, 0] = 1.0
    assert diverse(scores, likeness, 3) == [0, 2, 1]


def test_without_weight_on_likeness_it_is_the_order_of_scores() -> None:
    scores = torch.tensor([0.2, 0.9, 0.5])
    assert diverse(scores, torch.ones(3, 3), 3, balance=1.0) == [1, 2, 0]


def test_never_more_than_there_are_and_none_twice() -> None:
    chosen = diverse(torch.zeros(3), torch.eye(3), 10)
    assert sorted(chosen) == [0, 1, 2]


def test_likeness_by_words_and_by_vectors() -> None:
    words = word_likeness(["i like tea", "i like dogs", ""])
    assert words[0, 1] == 0.5
    assert words[0, 0] == 1
    assert words[2, 0] == 0
    vectors = vector_likeness(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]))
    torch.testing.assert_close(vectors, torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]]))
