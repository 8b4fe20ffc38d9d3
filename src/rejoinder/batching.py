"""Rows of token ids to padded tensors, and rows of like length into one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def pad(rows: Sequence[Sequence[int]], filler: int = 0, width: int = 0) -> tuple[Tensor, Tensor]:
    """Right-pad rows to their longest: -> ids (B, T) int64, mask (B, T), True at real tokens.

    With `width` to at least that.
    """
    width = max(1, width, max(map(len, rows), default=1))
    ids = torch.full((len(rows), width), filler, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[i, : len(row)] = True
    return ids, mask


def by_length(
    lengths: Sequence[int], budget: int, most: int = 0, *, equal: bool = False
) -> Iterator[list[int]]:
    """Batches of row numbers, longest rows first, each at most `budget` tokens after padding.

    With `most` also at most so many rows; with `equal` only rows of one length, unpadded.

    The longest come first so that memory is at its highest in the first batch, not in the last.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batch: list[int] = []
    for i in order:
        full = bool(most) and len(batch) == most
        full = full or (equal and bool(batch) and lengths[batch[0]] != lengths[i])
        if batch and (full or lengths[batch[0]] * (len(batch) + 1) > budget):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
