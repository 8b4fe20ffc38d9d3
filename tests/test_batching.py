"""Padding, and batches of rows alike in length."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.batching import by_length, pad

lengths_lists = st.lists(st.integers(1, 60), max_size=40)


@given(st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=5), st.integers(0, 9))
def test_padding_keeps_every_row_and_marks_it(rows: list[list[int]], filler: int) -> None:
    ids, mask = pad(rows, filler)
    assert ids.shape == mask.shape == (len(rows), max(1, *map(len, rows)))
    assert (ids.dtype, mask.dtype) == (torch.int64, torch.bool)
    for row, line, real in zip(rows, ids, mask, strict=True):
        assert line[real].tolist() == row
        assert real.tolist() == [True] * len(row) + [False] * (len(real) - len(row))
        assert set(line[~real].tolist()) <= {filler}


@given(lengths_lists, st.integers(1, 200))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(by_length(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = max(lengths[i] for i in batch) * len(batch)
        assert padded <= budget or len(batch) == 1
    order = [lengths[i] for batch in batches for i in batch]
    assert order == sorted(lengths, reverse=True)
