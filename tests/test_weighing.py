"""A dialogue with and without its persona, and what each counts."""

from __future__ import annotations

import math

import pytest
import torch

from rejoinder.errors import ConfigError
from rejoinder.schema import Dialogue, Message
from rejoinder.weighing import views, weighted

MESSAGES = (Message("user", "hi"),)
KNOWN = Dialogue(MESSAGES, ("i am a guide .",), ("i am a cook .",))
PLAIN = Dialogue(MESSAGES)


def test_both_are_seen_in_their_shares() -> None:
    assert views(KNOWN, 0.25) == [(KNOWN, 0.25), (PLAIN, 0.75)]


def test_what_counts_nothing_is_not_read() -> None:
    assert views(KNOWN, 1.0) == [(KNOWN, 1.0)]
    assert views(KNOWN, 0.0) == [(PLAIN, 1.0)]
    assert views(PLAIN, 0.3) == [(PLAIN, 1.0)]


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan, math.inf])
def test_a_weight_is_a_share(weight: float) -> None:
    with pytest.raises(ConfigError, match="persona_weight is .*; expected 0 .* to 1 "):
        views(PLAIN, weight)


def test_scores_are_summed_up_in_their_shares() -> None:
    scores = [torch.tensor([1.0, 8.0]), torch.tensor([3.0, -4.0])]
    assert weighted(scores, (0.25, 0.75)).tolist() == [2.5, -1.0]
    assert weighted(scores[:1], (1.0,)).equal(scores[0])
