"""Attention against loops, and late scores against attending and multiplying again."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from rejoinder.errors import ConfigError
from rejoinder.models.attention import (
    MultiheadAttention,
    all_real,
    attend,
    late_score,
    sqrt_scale,
)

B, M, N, D = 3, 5, 4, 8


@pytest.fixture
def parts() -> tuple[Tensor, Tensor, Tensor]:
    """Candidates (B, N, D), codes (B, M, D), and which codes are real: at least one in each row."""
    torch.manual_seed(0)
    mask = torch.arange(M) < torch.tensor([[5], [3], [1]])
    return torch.randn(B, N, D), torch.randn(B, M, D), mask


Parts = tuple[Tensor, Tensor, Tensor]


def slow_attend(query: Tensor, keys: Tensor, mask: Tensor, scale: float) -> Tensor:
    """One query at a time, over real keys only."""
    out = torch.zeros_like(query)
    for b in range(len(query)):
        real = [k for k, there in zip(keys[b], mask[b], strict=True) if there]
        for i, q in enumerate(query[b]):
            weights = [math.exp(scale * float(q @ k)) for k in real]
            for weight, k in zip(weights, real, strict=True):
                out[b, i] += weight / sum(weights) * k
    return out


@pytest.mark.parametrize("scale", [1.0, 10.0, sqrt_scale(D)])
def test_attend_equals_the_slow_one(parts: Parts, scale: float) -> None:
    assert_close(attend(*parts, scale), slow_attend(*parts, scale), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pad", [1, 7])
def test_padding_never_changes_attention(parts: Parts, pad: int) -> None:
    query, keys, mask = parts
    padded = torch.cat([keys, torch.full((B, pad, D), 99.0)], 1)
    longer = torch.cat([mask, torch.zeros(B, pad, dtype=torch.bool)], 1)
    assert_close(attend(query, padded, longer), attend(query, keys, mask))
    dots, more = keys @ query.mT, padded @ query.mT
    assert_close(late_score(more, longer, 1.0), late_score(dots, mask, 1.0))


@pytest.mark.parametrize("scale", [1.0, 0.01, 30.0, torch.tensor(3.0)])
def test_a_late_score_equals_attending_and_multiplying(parts: Parts, scale: float | Tensor) -> None:
    query, keys, mask = parts
    wanted = (attend(query, keys, mask, scale) * query).sum(-1)
    assert_close(late_score(keys @ query.mT, mask, scale), wanted, rtol=1e-5, atol=1e-5)


def test_a_late_score_of_one_code_is_the_plain_product(parts: Parts) -> None:
    dots = parts[1][:, :1] @ parts[0].mT
    assert late_score(dots, torch.ones(B, 1, dtype=torch.bool), 7.0).equal(dots[:, 0])


def test_a_late_score_is_never_above_its_best_product(parts: Parts) -> None:
    """The bound that a pruned search would stand on."""
    query, keys, mask = parts
    dots = keys @ query.mT
    best = dots.masked_fill(~mask[:, :, None], float("-inf")).amax(1)
    for scale in (0.0, 1.0, 50.0):
        assert (late_score(dots, mask, scale) <= best + 1e-5).all()


def test_codes_that_are_not_there_get_no_gradient(parts: Parts) -> None:
    query, keys, mask = parts
    keys.requires_grad_()
    torch.autograd.backward(late_score(keys @ query.mT, mask, 1.0).sum())
    assert keys.grad is not None
    assert (keys.grad[mask] != 0).any()
    assert (keys.grad[~mask] == 0).all()


def test_multihead_attention_equals_torchs(parts: Parts) -> None:
    query, keys, mask = parts
    ours = MultiheadAttention(D, heads=2)
    theirs = nn.MultiheadAttention(D, 2, batch_first=True)
    with torch.no_grad():
        for bias in (ours.q_lin.bias, ours.k_lin.bias, ours.v_lin.bias, ours.out_lin.bias):
            bias.normal_()
        projections = (ours.q_lin, ours.k_lin, ours.v_lin)
        theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in projections]))
        theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in projections]))
        theirs.out_proj.load_state_dict(ours.out_lin.state_dict())
    wanted, _ = theirs(query, keys, keys, key_padding_mask=~mask)
    assert_close(ours(query, keys, mask), wanted, rtol=1e-5, atol=1e-5)


def test_heads_must_share_the_width() -> None:
    with pytest.raises(
        ConfigError, match="heads is 3; expected a number that divides the width, 8"
    ):
        MultiheadAttention(8, heads=3)


def test_multihead_attention_drops_weights_only_while_learning() -> None:
    made, plain = MultiheadAttention(8, 2, dropout=0.5), MultiheadAttention(8, 2)
    plain.load_state_dict(made.state_dict())
    query, keys, mask = torch.randn(1, 3, 8), torch.randn(1, 5, 8), torch.ones(1, 5).bool()
    assert made.eval()(query, keys, mask).equal(plain(query, keys, mask))
    made.train()
    torch.manual_seed(0)
    found = torch.stack([made(query, keys, mask) for _ in range(2000)])
    assert not found[0].equal(found[1])
    expected = plain(query, keys, mask)
    assert (found.mean(0) - expected).abs().max() < 0.1  # what is kept is made up for


def test_sqrt_divides_by_the_root_of_the_whole_width() -> None:
    assert sqrt_scale(64) == 1 / 8


def test_all_codes_are_there() -> None:
    mask = all_real(torch.zeros(2, 3, 8))
    assert mask.shape == (2, 3)
    assert mask.all()


@pytest.mark.parametrize("codes", [1, 7])
def test_a_score_without_padding_is_that_with_padding(codes: int) -> None:
    dots = torch.rand(1, codes, 9) * 2 - 1
    padded = torch.cat([dots, torch.rand(1, 3, 9)], 1)
    mask = torch.arange(codes + 3)[None] < codes
    short = late_score(dots, mask[:, :codes], 4.5)
    torch.testing.assert_close(short, late_score(padded, mask, 4.5))
