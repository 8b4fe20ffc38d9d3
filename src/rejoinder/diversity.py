"""Suggest several replies that differ: maximal marginal relevance (Carbonell, Goldstein 1998)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rejoinder.words import words

BALANCE = 0.7  # weight of the score; the rest is for being unlike what was chosen before


def diverse(scores: Tensor, likeness: Tensor, k: int, balance: float = BALANCE) -> list[int]:
    """Numbers of k candidates, each the best by score less likeness to those before it.

    scores: (N,), brought to 0..1 here. likeness: (N, N), at most 1.
    """
    spread = (scores.max() - scores.min()).clamp(min=1e-9)
    worth = (scores - scores.min()) / spread
    near = torch.full_like(worth, -torch.inf)  # likeness to the nearest that was chosen
    chosen: list[int] = []
    while len(chosen) < min(k, len(scores)):
        unlike = near if chosen else torch.zeros_like(near)
        gain = balance * worth - (1 - balance) * unlike
        gain[chosen] = -torch.inf
        chosen.append(int(gain.argmax()))
        near = torch.maximum(near, likeness[:, chosen[-1]])
    return chosen


def vector_likeness(vectors: Tensor) -> Tensor:
    """Cosine of every two candidate vectors: (N, D) -> (N, N)"""
    unit = torch.nn.functional.normalize(vectors.float(), dim=-1)
    return (unit @ unit.T).cpu()


def word_likeness(texts: Sequence[str]) -> Tensor:
    """Share of common words of every two texts: -> (N, N). For rankers without vectors."""
    bags = [set(words(text)) for text in texts]
    rows = [[len(a & b) / max(1, len(a | b)) for b in bags] for a in bags]
    return torch.tensor(rows, dtype=torch.float32)
