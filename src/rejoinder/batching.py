"""Rows of token ids to padded tensors, and rows of like length into one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def pad(rows: Sequence[Sequence[int]], filler: int = 0) -> tuple[Tensor, Tensor]:
    """Right-pad rows to their longest: -> ids (B, T) int64, mask (B, T), True at real tokens."""
    width = max(1, max(map(len, rows)))
    ids = torch.full((len(rows), width), filler, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[i, : len(row)] = True
    return ids, mask


def by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Batches of row numbers, longest rows first, each at most `budget` tokens after padding.

    The longest come first so that memory is at its highest in the first batch, not in the last.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batch: list[int] = []
    for i in order:
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def shuffled_buckets(
    lengths: Sequence[int], size: int, generator: torch.Generator, spread: int = 32
) -> list[list[int]]:
    """One epoch's batches of `size` rows: random rows, alike in length within a batch.

    Rows are shuffled, cut into groups of `spread` batches, sorted by length inside a group, and the
    batches of all groups are shuffled. The last batch may be smaller.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    batches: list[list[int]] = []
    for start in range(0, len(order), size * spread):
        group = sorted(order[start : start + size * spread], key=lambda i: lengths[i])
        batches += [group[i : i + size] for i in range(0, len(group), size)]
    mixed = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[i] for i in mixed]
