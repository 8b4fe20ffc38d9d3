"""The ranking loss, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rejoinder.models.losses import ranking_loss

SCORES = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
GOLD = torch.tensor([0, 2])
ALL = torch.ones(2, 3, dtype=torch.bool)


def test_by_hand() -> None:
    first = -math.log(math.exp(2) / (math.exp(2) + math.exp(1) + 1))
    assert float(ranking_loss(SCORES, GOLD, ALL)) == pytest.approx(first + math.log(3))


def test_by_hand_with_a_column_that_does_not_count() -> None:
    real = torch.tensor([[True, False, True], [True, True, True]])
    first = -math.log(math.exp(2) / (math.exp(2) + 1))
    assert float(ranking_loss(SCORES, GOLD, real)) == pytest.approx(first + math.log(3))


def test_columns_that_do_not_count_have_no_gradient_and_no_say() -> None:
    real = torch.tensor([[True, False, True], [False, False, True]])
    grads: list[Tensor] = []
    for filler in (1.0, 1e6, float("nan")):
        scores = SCORES.masked_fill(~real, filler).requires_grad_()
        torch.autograd.backward(ranking_loss(scores, GOLD, real))
        assert scores.grad is not None
        assert (scores.grad[~real] == 0).all()
        grads.append(scores.grad[real])
    assert grads[0].equal(grads[1])
    assert grads[0].equal(grads[2])


def test_the_gradient_is_the_softmax_less_the_right_one() -> None:
    scores = SCORES.clone().requires_grad_()
    torch.autograd.backward(ranking_loss(scores, GOLD, ALL))
    wanted = SCORES.softmax(1)
    wanted[[0, 1], GOLD] -= 1
    torch.testing.assert_close(scores.grad, wanted)


def test_a_right_reply_alone_costs_nothing() -> None:
    real = torch.zeros(2, 3, dtype=torch.bool)
    real[[0, 1], GOLD] = True
    assert ranking_loss(SCORES, GOLD, real) == 0


def test_it_is_a_sum_so_parts_add_up() -> None:
    parts = [ranking_loss(SCORES[i : i + 1], GOLD[i : i + 1], ALL[i : i + 1]) for i in (0, 1)]
    assert float(sum(parts)) == pytest.approx(float(ranking_loss(SCORES, GOLD, ALL)))


def test_half_precision_scores_are_summed_in_full() -> None:
    scores = torch.zeros(1, 5000, dtype=torch.bfloat16)
    loss = ranking_loss(scores, torch.tensor([0]), torch.ones(1, 5000, dtype=torch.bool))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(math.log(5000))
