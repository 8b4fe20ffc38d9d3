"""Padding, and batches of rows alike in length."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.batching import by_length, pad, shuffled_buckets

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


@given(lengths_lists, st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
def test_an_epoch_holds_every_row_once(
    lengths: list[int], size: int, spread: int, seed: int
) -> None:
    batches = shuffled_buckets(lengths, size, torch.Generator().manual_seed(seed), spread)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    assert sum(len(batch) < size for batch in batches) <= 1


def epoch(seed: int, lengths: list[int]) -> list[list[int]]:
    return shuffled_buckets(lengths, 8, torch.Generator().manual_seed(seed))


def test_an_epoch_is_decided_by_its_seed() -> None:
    lengths = [5 + i % 50 for i in range(400)]
    assert epoch(1, lengths) == epoch(1, lengths)
    assert epoch(1, lengths) != epoch(2, lengths)


def test_rows_of_a_batch_are_alike_in_length_but_batches_come_mixed() -> None:
    lengths = [5 + i % 50 for i in range(400)]
    batches = epoch(0, lengths)
    inside = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in batches]
    assert max(inside) < 10  # the rows in random order would differ by about 40
    first = [lengths[batch[0]] for batch in batches]
    assert first != sorted(first)
    assert first != sorted(first, reverse=True)
