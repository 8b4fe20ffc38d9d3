"""Pooling: against loops, and blind to padding."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rejoinder.errors import ConfigError
from rejoinder.models.encoder import Pooling, pool

STATES = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
MASK = torch.arange(4) < torch.tensor([[4], [2], [1]])


def slow_pool(states: Tensor, mask: Tensor, how: str) -> Tensor:
    """One row at a time, over real tokens only."""
    rows = []
    for state, real in zip(states, mask, strict=True):
        there = state[real]
        rows.append({"mean": there.mean(0), "first": there[0], "max": there.max(0).values}[how])
    return torch.stack(rows)


@pytest.mark.parametrize("how", get_args(Pooling))
def test_pool_equals_the_slow_one(how: Pooling) -> None:
    assert_close(pool(STATES, MASK, how), slow_pool(STATES, MASK, how))


@pytest.mark.parametrize("how", get_args(Pooling))
def test_padding_never_changes_pooling(how: Pooling) -> None:
    padded = torch.cat([STATES, torch.full((3, 5, 8), 99.0)], 1)
    longer = torch.cat([MASK, torch.zeros(3, 5, dtype=torch.bool)], 1)
    assert_close(pool(padded, longer, how), pool(STATES, MASK, how))


def test_the_mean_of_nothing_is_zero() -> None:
    nothing = torch.zeros(3, 4, dtype=torch.bool)
    assert pool(STATES, nothing, "mean").equal(torch.zeros(3, 8))


def test_a_pooling_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="pooling is 'last'; expected mean, first or max"):
        pool(STATES, MASK, "last")  # type: ignore[arg-type]
