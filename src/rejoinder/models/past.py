"""Keys and values of the tokens that a causal model has read, so that none is read twice."""

from __future__ import annotations

import torch
from torch import Tensor

STEP = 64  # places that are made room for at once


class Past:
    """Of every layer, keys and values (B, H, K, D/H) of the K tokens before, for inference.

    Room is made for STEP tokens at a time, so that a token more is written and nothing copied.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._length: list[int] = []

    @property
    def length(self) -> int:
        """K, the tokens that all layers have."""
        return min(self._length, default=0)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put the next tokens' (B, H, T, D/H) behind a layer's; -> all of that layer's."""
        if layer == len(self._kept):
            self._kept.append((keys[:, :, :0], values[:, :, :0]))
            self._length.append(0)
        begin = self._length[layer]
        end = begin + keys.shape[2]
        if end > self._kept[layer][0].shape[2]:
            self._kept[layer] = _longer(self._kept[layer], begin, -(-end // STEP) * STEP)
        for all_of_it, new in zip(self._kept[layer], (keys, values), strict=True):
            all_of_it[:, :, begin:end] = new
        self._length[layer] = end
        k, v = self._kept[layer]
        return k[:, :, :end], v[:, :, :end]

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may come several times."""
        self._kept = [(k[rows], v[rows]) for k, v in self._kept]


def _longer(pair: tuple[Tensor, Tensor], used: int, room: int) -> tuple[Tensor, Tensor]:
    def longer(old: Tensor) -> Tensor:
        new = old.new_zeros(*old.shape[:2], room, old.shape[3])
        new[:, :, :used] = old[:, :, :used]
        return new

    return longer(pair[0]), longer(pair[1])


def causal(mask: Tensor, length: int) -> Tensor:
    """What the last `length` of K tokens see, those before and themselves: (B, K) -> (B, T, K)."""
    count = mask.shape[1]
    order = torch.arange(count, device=mask.device)
    earlier = order[None, :] <= order[count - length :, None]  # (T, K)
    return earlier & mask[:, None, :]
